"""The GPU that the stand-ins for cupy and cudnn share: memory, streams, graphs, and kernels compiled for the host.

What stand-ins for other libraries of CUDA need of it is gathered here: ``record``, ``memory_at`` and ``counts``.
"""

from __future__ import annotations

from simulated.counts import counts
from simulated.errors import CUDARuntimeError
from simulated.memory import array_at, memory_at
from simulated.streams import current_stream, forbid_in_capture, is_capturing, record, wait

__all__ = [
    "CUDARuntimeError",
    "array_at",
    "counts",
    "current_stream",
    "forbid_in_capture",
    "is_capturing",
    "memory_at",
    "record",
    "wait",
]
