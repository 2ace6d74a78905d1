"""The mean of a whole image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import PoolingGeometry
from paratrain.backends.numpy.pooling import Array, AveragePooling
from paratrain.backends.numpy.scratch import Scratch

__all__ = ["GlobalAveragePooling"]


class GlobalAveragePooling(AveragePooling):
    """As :class:`AveragePooling`, for a window that is the whole image: one product with a vector, and one spreading."""

    def __init__(self, geometry: PoolingGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        super().__init__(geometry, dtype, scratch)
        pixels = math.prod(geometry.spatial)
        self._shares = np.full(pixels, 1.0 / pixels, self._dtype)

    @staticmethod
    def suits(geometry: PoolingGeometry) -> bool:
        """Whether one window is all there is."""
        return geometry.kernel == geometry.spatial and geometry.output == (1, 1) and not any(geometry.pad)

    def forward(self, bottom: Array, top: Array, mask: Array | None) -> None:
        assert mask is None, "average pooling has no mask"
        np.matmul(bottom.reshape(-1, len(self._shares)), self._shares, out=top.reshape(-1))

    def backward(self, bottom: Array, top_diff: Array, bottom_diff: Array) -> None:
        np.multiply(top_diff.reshape(-1, 1), self._shares, out=bottom_diff.reshape(-1, len(self._shares)))
