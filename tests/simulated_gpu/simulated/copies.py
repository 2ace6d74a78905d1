"""Copies of bytes by their addresses, between GPUs and the host."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from simulated import late
from simulated.memory import block_at, memory_at
from simulated.pinned import is_pinned
from simulated.streams import is_capturing, record, wait

__all__ = ["by_address", "copy"]


def by_address(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array of the host, which it does not keep alive, as little as a copy of CUDA's does."""
    buffer = (ctypes.c_ubyte * array.nbytes).from_address(array.ctypes.data)
    return np.ndarray(array.shape, array.dtype, buffer, 0, array.strides)


def copy(target: int, source: int, size: int, stream: int | None) -> late.Work | None:
    """Give a copy to the stream. Memory of the host that is not pinned is read at once, and written when this returns."""
    if not size:
        return None
    here, there = memory_at(target, size), memory_at(source, size)
    blocks = [block for block in map(block_at, (target, source)) if block is not None]
    host = [(address, size) for address in (target, source) if block_at(address) is None]
    is_late = late.is_on() and not is_capturing(stream)
    if is_late and block_at(source) is None and not is_pinned(there):
        there = there.copy()
    work = record(lambda: np.copyto(here, there), stream, blocks, host)
    if is_late and block_at(target) is None and not is_pinned(here):
        wait(work)
    return work
