"""cupy.cuda.nccl, as CuPy has it where there is no NCCL."""

from __future__ import annotations

__all__ = ["available"]

available = False
