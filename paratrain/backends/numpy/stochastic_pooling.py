"""Stochastic pooling: one pixel of every window, drawn by its share of the window's sum."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import PoolingGeometry
from paratrain.backends.numpy.pooling import WindowPooling
from paratrain.backends.numpy.scratch import Scratch

__all__ = ["StochasticPooling"]

Array = npt.NDArray[Any]


class StochasticPooling(WindowPooling):
    """The first pixel, in row order, at which the running sum reaches (1 - u) times the window's sum.

    Pixels of value 0 are chosen only where the whole window is 0: then the first. Where nothing reaches the threshold,
    since the sum is negative, it is the first as well.
    """

    _neutral = 0.0

    def __init__(self, geometry: PoolingGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        super().__init__(geometry, dtype, scratch)
        self._offsets = [(..., *offset) for offset in itertools.product(self._rows, self._columns)]
        self._number_type = np.min_scalar_type(len(self._offsets))
        # The number of the offset that each window took in the last forward pass.
        self._chosen: Array = np.zeros(0, self._number_type)
        # Where offsets and windows lie in the memory of an image.
        shape = self._reach if self._is_padded else geometry.spatial
        steps = [np.arange(n) * step for n, step in zip(geometry.kernel, (shape[1], 1), strict=True)]
        self._offset_places = np.add.outer(*steps).reshape(-1)
        sizes = zip(geometry.output, geometry.stride, (shape[1], 1), strict=True)
        self._window_places = np.add.outer(*(np.arange(n) * stride * step for n, stride, step in sizes))
        self._image_size = shape[0] * shape[1]

    def forward(self, bottom: Array, top: Array, mask: Array | None) -> None:
        assert mask is not None, "stochastic pooling needs a random number for each window"
        if not self._chosen.size:
            self._chosen = np.zeros(top.shape, self._number_type)
        for images in self._image_groups():
            out, threshold, chosen = top[images], mask[images], self._chosen[images]
            padded, total, low, open_, places = self._scratch.take(
                (self._padded_shape(out.shape[0]), self._dtype),
                (out.shape, self._dtype),
                (out.shape, bool),
                (out.shape, bool),
                (out.shape, np.intp),
            )
            source = self._pad(bottom[images], padded)
            # Added in the order of the running sum, so that this ends at the total to the last bit.
            total.fill(0)
            for pixels in self._offsets:
                np.add(total, source[pixels], out=total)
            np.subtract(1, threshold, out=threshold)
            np.multiply(threshold, total, out=threshold)
            # The number of the first pixel that reaches the threshold is how many before it did not.
            total.fill(0)
            open_.fill(True)
            chosen.fill(0)
            for pixels in self._offsets:
                np.add(total, source[pixels], out=total)
                np.less(total, threshold, out=low)
                np.logical_and(open_, low, out=open_)
                np.add(chosen, open_, out=chosen)
            np.less(chosen, len(self._offsets), out=low)
            np.multiply(chosen, low, out=chosen)
            np.take(self._offset_places, chosen, out=places, mode="clip")
            places += self._window_places
            channels = np.arange(out.shape[0] * out.shape[1]) * self._image_size
            places += channels.reshape(*out.shape[:2], 1, 1)
            np.take(source.reshape(-1), places, out=out, mode="clip")

    def backward(self, bottom: Array, top_diff: Array, bottom_diff: Array) -> None:
        for images in self._image_groups():
            diff, chosen = top_diff[images], self._chosen[images]
            padded, share, taken = self._scratch.take(
                (self._padded_shape(diff.shape[0]), self._dtype), (diff.shape, self._dtype), (diff.shape, bool)
            )
            target = padded if self._is_padded else bottom_diff[images]
            target.fill(0)
            for number, pixels in enumerate(self._offsets):
                np.equal(chosen, number, out=taken)
                np.multiply(diff, taken, out=share)
                np.add(target[pixels], share, out=target[pixels])
            if self._is_padded:
                self._unpad(padded, bottom_diff[images])
