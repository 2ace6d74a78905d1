"""Local response normalization across channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import LocalResponseGeometry
from paratrain.backends.numpy.scratch import Scratch

__all__ = ["NumpyLocalResponseNormalization"]

Array = npt.NDArray[Any]

_GROUP_BYTES = 1 << 19  # of values per group of images, so that the passes over them stay in the cache


class NumpyLocalResponseNormalization:
    """``y_i = x_i s_i^-beta``, ``s_i = k + alpha / size * sum of x_j^2`` over the ``size`` channels around i.

    The gradient is ``dx_i = dy_i s_i^-beta - 2 alpha beta / size * x_i * sum of dy_j y_j / s_j`` over the same channels
    (Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural networks, 2012). ``s`` is kept
    from forward to backward: one array of the bottom's shape, owned by the primitive.
    """

    def __init__(self, geometry: LocalResponseGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        assert geometry.size % 2 == 1, "a window has a middle"
        self.geometry = geometry
        self._dtype = np.dtype(dtype)
        self._scratch = scratch
        batch, channels, *spatial = geometry.shape
        self._shape = (batch, channels, math.prod(spatial))
        image_bytes = channels * self._shape[2] * self._dtype.itemsize
        self._images = max(min(_GROUP_BYTES // max(image_bytes, 1), batch), 1)
        self._scale: Array | None = None

    def forward(self, bottom: Array, top: Array) -> None:
        g = self.geometry
        if self._scale is None:
            self._scale = np.empty(self._shape, self._dtype)
        source, target = bottom.reshape(self._shape), top.reshape(self._shape)
        for start in range(0, self._shape[0], self._images):
            images = slice(start, start + self._images)
            x, scale, y = source[images], self._scale[images], target[images]
            (padded,) = self._scratch.take((self._padded_shape(x.shape[0]), self._dtype))
            np.multiply(x, x, out=self._inside(padded))
            self._window_sum(padded, scale)
            np.multiply(scale, g.alpha / g.size, out=scale)
            np.add(scale, g.k, out=scale)
            self._inverse_power(scale, y, padded)
            np.multiply(y, x, out=y)

    def backward(self, bottom: Array, top: Array, top_diff: Array, bottom_diff: Array) -> None:
        g = self.geometry
        assert self._scale is not None, "forward comes first"
        arrays = [array.reshape(self._shape) for array in (bottom, top, top_diff, bottom_diff)]
        for start in range(0, self._shape[0], self._images):
            images = slice(start, start + self._images)
            x, y, dy, dx = (array[images] for array in arrays)
            scale = self._scale[images]
            padded, sums = self._scratch.take((self._padded_shape(x.shape[0]), self._dtype), (x.shape, self._dtype))
            ratio = self._inside(padded)
            np.multiply(dy, y, out=ratio)
            np.divide(ratio, scale, out=ratio)
            self._window_sum(padded, sums)
            np.multiply(sums, x, out=sums)
            np.multiply(sums, 2 * g.alpha * g.beta / g.size, out=sums)
            self._inverse_power(scale, dx, padded)
            np.multiply(dx, dy, out=dx)
            np.subtract(dx, sums, out=dx)

    def _padded_shape(self, count: int) -> tuple[int, int, int]:
        return count, self._shape[1] + self.geometry.size - 1, self._shape[2]

    def _inside(self, padded: Array) -> Array:
        """Clear the channels before the first and after the last one, and return those between."""
        before = self.geometry.size // 2
        end = before + self._shape[1]
        padded[:, :before] = 0
        padded[:, end:] = 0
        return padded[:, before:end]

    def _window_sum(self, padded: Array, out: Array) -> None:
        """Sum ``size`` neighbouring channels."""
        channels = self._shape[1]
        np.copyto(out, padded[:, :channels])
        for offset in range(1, self.geometry.size):
            np.add(out, padded[:, offset : offset + channels], out=out)

    def _inverse_power(self, scale: Array, out: Array, spare: Array) -> None:
        """out = scale^-beta; ``spare`` is overwritten. For the usual 3/4 two square roots are much quicker than a power."""
        if self.geometry.beta != 0.75:
            np.power(scale, -self.geometry.beta, out=out)
            return
        fourth_root = spare.reshape(-1)[: out.size].reshape(out.shape)
        np.sqrt(scale, out=out)
        np.sqrt(out, out=fourth_root)
        np.multiply(out, fourth_root, out=out)
        np.reciprocal(out, out=out)
