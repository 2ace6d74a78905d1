"""Memory that the primitives of one backend use in turn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Scratch"]

_ALIGNMENT = 64  # a cache line, and the widest vector registers


class Scratch:
    """One block of host memory, as large as the hungriest primitive needs, lent anew to every run of a primitive.

    What a run leaves there is lost with the next run of any primitive. One thread at a time may use it.
    """

    def __init__(self) -> None:
        self._block: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    @property
    def size_bytes(self) -> int:
        """Bytes held now."""
        return self._block.nbytes

    def take(self, *requests: tuple[tuple[int, ...], npt.DTypeLike]) -> list[npt.NDArray[Any]]:
        """Return one uninitialized C-contiguous array for each (shape, dtype), none overlapping another."""
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in requests]
        padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        if sum(padded) + _ALIGNMENT > self._block.nbytes:
            self._block = np.empty(sum(padded) + _ALIGNMENT, np.uint8)
        start = -self._block.ctypes.data % _ALIGNMENT
        arrays: list[npt.NDArray[Any]] = []
        for (shape, dtype), size in zip(requests, padded, strict=True):
            arrays.append(np.ndarray(shape, dtype, self._block, start))
            start += size
        return arrays
