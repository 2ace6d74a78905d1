"""How pool: STOCHASTIC pools: by drawing a pixel in TRAIN, by the weighted mean in TEST."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.layers.base import Layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.effective_batch import draw_uniform

__all__ = ["DrawnPooling", "WeightedMeanPooling"]


class DrawnPooling:
    """y = one pixel of the window, each drawn with the probability x / (sum of the window); dx = dy there.

    Values must not be negative for this to make sense; of a window without positive ones it is the first pixel. The
    numbers that decide are the same on any number of ranks, see :func:`draw_uniform`.
    """

    def __init__(self, layer: Layer, geometry: PoolingGeometry, dtype: npt.DTypeLike) -> None:
        self._layer = layer
        self._primitive = layer.backend.pooling(geometry, dtype)
        self._numbers = Buffer(layer.xp)

    def forward(self, bottom: Any, top: Any, mask: Any | None) -> None:
        numbers = self._numbers.get(top.shape, top.dtype)
        draw_uniform(self._layer, "pooling", numbers)
        self._primitive.forward(bottom, top, numbers)

    def backward(self, bottom: Any, top_diff: Any, bottom_diff: Any) -> None:
        self._primitive.backward(bottom, top_diff, bottom_diff)


class WeightedMeanPooling:
    """y = (sum of x^2) / (sum of x) over a window, 0 where the sum of x is not positive.

    dx = sum over the windows of dy (2 x - y) / (sum of x). Made of two means, whose divisors cancel.
    """

    def __init__(self, layer: Layer, geometry: PoolingGeometry, dtype: npt.DTypeLike) -> None:
        self._xp = layer.xp
        means = dataclasses.replace(geometry, method=PoolMethod.AVE)
        self._mean, self._mean_square = (layer.backend.pooling(means, dtype) for _ in range(2))
        self._sums, self._squares, self._shares, self._means = (Buffer(layer.xp) for _ in range(4))

    def forward(self, bottom: Any, top: Any, mask: Any | None) -> None:
        sums = self._sums.get(top.shape, top.dtype)
        self._mean.forward(bottom, sums, None)
        # Where there is nothing to divide by, by infinity: y and the gradient become 0.
        self._xp.copyto(sums, sums.dtype.type(np.inf), where=sums <= 0)
        self._divide_squares(bottom, sums, top)

    def backward(self, bottom: Any, top_diff: Any, bottom_diff: Any) -> None:
        shape, dtype = top_diff.shape, top_diff.dtype
        sums, shares, means = (buffer.get(shape, dtype) for buffer in (self._sums, self._shares, self._means))
        self._xp.divide(top_diff, sums, out=shares)
        self._mean.backward(bottom, shares, bottom_diff)
        bottom_diff *= 2
        bottom_diff *= bottom
        # y anew: a layer that works in place may have written over the top.
        self._divide_squares(bottom, sums, means)
        shares *= means
        negative = self._squares.get(bottom.shape, dtype)
        self._mean.backward(bottom, shares, negative)
        bottom_diff -= negative

    def _divide_squares(self, bottom: Any, sums: Any, means: Any) -> None:
        """means = (sum of x^2) / sums."""
        squares = self._squares.get(bottom.shape, bottom.dtype)
        self._xp.multiply(bottom, bottom, out=squares)
        self._mean_square.forward(squares, means, None)
        means /= sums
