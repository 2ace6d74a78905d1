"""Maxima of large windows that lie side by side: global pooling, and the levels of a pyramid."""

from __future__ import annotations

import math

import numpy as np

from paratrain.backends.base import PoolingGeometry
from paratrain.backends.numpy.pooling import Array, MaxPooling

__all__ = ["TiledMaxPooling"]

_LARGE_WINDOW = 32  # pixels; from here on one search in each window beats an operation per pixel


class TiledMaxPooling(MaxPooling):
    """As :class:`MaxPooling`, for kernels as large as their steps: the gradient is found by one search in each window."""

    @staticmethod
    def suits(geometry: PoolingGeometry) -> bool:
        """Whether windows neither overlap nor leave gaps, and are large."""
        return geometry.kernel == geometry.stride and math.prod(geometry.kernel) >= _LARGE_WINDOW

    def backward(self, bottom: Array, top_diff: Array, bottom_diff: Array) -> None:
        (height, width), (rows, columns) = self.geometry.kernel, self.geometry.output
        for images in self._image_groups():
            diff = top_diff[images]
            padded, tiles = self._scratch.take(
                (self._padded_shape(diff.shape[0]), self._dtype), ((*diff.shape, height * width), self._dtype)
            )
            image = self._pad(bottom[images], padded)[..., : self._reach[0], : self._reach[1]]
            windows = tiles.reshape(*diff.shape, height, width).transpose(0, 1, 2, 4, 3, 5)
            np.copyto(windows, image.reshape(*diff.shape[:2], rows, height, columns, width))
            row, column = np.divmod(tiles.argmax(axis=-1), width)
            row += (np.arange(rows) * height)[:, None]
            column += np.arange(columns) * width
            n, c = np.ogrid[: diff.shape[0], : diff.shape[1], :1, :1][:2]
            target = padded if self._is_padded else bottom_diff[images]
            target.fill(0)
            target.reshape(*target.shape[:2], -1)[n, c, row * target.shape[-1] + column] = diff
            if self._is_padded:
                self._unpad(padded, bottom_diff[images])
