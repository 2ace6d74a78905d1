"""MVN: every image, or every channel of it, gets mean 0 and variance 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.proto import LayerParameter

__all__ = ["MVNLayer"]


@register_layer("MVN")
class MVNLayer(Layer):
    """y = (x - mean) / (s + ``eps``): mean and standard deviation s (divided by n) of the n values of one channel.

    With ``across_channels`` of all channels of one image; with ``normalize_variance: false`` y = x - mean. Bottom of up
    to 4 axes, (N, C, H, W); the top always has 4, the missing ones 1.
    Gradient: dx = (dy - mean of dy - y r mean of (dy y)) / (s + eps), r = (s + eps) / s, which Caffe takes for 1; 1
    where s is 0. Without the variance dx = dy - mean of dy. Works in place.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        mvn = parameter.mvn_param
        self._normalizes, self._eps = mvn.normalize_variance, mvn.eps
        if self._eps < 0:
            raise self.error(f"mvn_param.eps is {self._eps:g}; it must not be negative")
        self._scratch = Buffer(self.xp)
        self._deviation: Any = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shape = bottom[0].shape
        if len(shape) > 4:
            raise self.error(
                f"{self.bottom_name(0)} is {shape}; MVN takes up to 4 axes (N, C, H, W)", ShapeMismatchError
            )
        shape = (*shape, *(1,) * (4 - len(shape)))
        first = 1 if self.parameter.mvn_param.across_channels else 2  # of the axes that are summed over
        self._sizes = (math.prod(shape[:first]), math.prod(shape[first:]))
        top[0].reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(self._sizes)
        xp.subtract(x, x.mean(axis=1, keepdims=True), out=y)
        if self._normalizes:
            count = max(self._sizes[1], 1)
            self._deviation = xp.sqrt(xp.einsum("ij,ij->i", y, y)[:, None] / count)
            y /= self._deviation + self._eps

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, y = self.xp, self.read(top[0]).reshape(self._sizes)
        dy, dx = self.read_diff(top[0]).reshape(self._sizes), self.write_diff(bottom[0]).reshape(self._sizes)
        mean_diff = dy.mean(axis=1, keepdims=True)
        if not self._normalizes:
            xp.subtract(dy, mean_diff, out=dx)
            return
        divisor = self._deviation + self._eps
        ratio = xp.where(self._deviation > 0, divisor / xp.where(self._deviation > 0, self._deviation, 1), 1)
        slope = xp.einsum("ij,ij->i", dy, y)[:, None] / max(self._sizes[1], 1) * ratio
        common = xp.multiply(y, slope, out=self._scratch.get(self._sizes, dy.dtype))
        common += mean_diff
        xp.subtract(dy, common, out=dx)
        dx /= divisor
