"""cupy.cuda.nccl, as CuPy has it where there is no NCCL; ``cupy.cuda`` has it once somebody has imported it."""

from __future__ import annotations

__all__ = ["available"]

available = False
