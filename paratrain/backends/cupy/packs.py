"""Whether kernels may move 16 bytes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PACK_BYTES", "pack_of"]

PACK_BYTES = 16


def pack_of(dtype: npt.DTypeLike, count: int, *arrays: Any | None) -> int:
    """Return how many values a thread of a kernel whose name ends in ``_packed`` takes; 1 where that one cannot be used.

    It needs runs of ``count`` values that are whole packs, and arrays that begin at whole packs (None is an array left out).
    """
    values = PACK_BYTES // np.dtype(dtype).itemsize
    fits = count % values == 0 and all(array is None or array.data.ptr % PACK_BYTES == 0 for array in arrays)
    return values if fits else 1
