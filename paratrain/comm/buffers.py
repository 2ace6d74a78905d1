"""Arrays to receive in, used over and over."""

from __future__ import annotations

import numpy as np

from paratrain.comm.communicator import Array

__all__ = ["Buffers"]


class Buffers:
    """Flat arrays of one dtype, each as long as the longest message; made when first needed, kept for ever."""

    def __init__(self, count: int, dtype: np.dtype[np.generic]) -> None:
        self._count = count
        self._dtype = dtype
        self._free: list[Array] = []

    def take(self) -> Array:
        """An array of the full length; the caller gives it back."""
        return self._free.pop() if self._free else np.empty(self._count, self._dtype)

    def give_back(self, array: Array) -> None:
        """Take an array back that `take` gave."""
        self._free.append(array)
