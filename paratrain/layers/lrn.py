"""The LRN layer: local response normalization across channels or within each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from paratrain.backends.base import LocalResponseGeometry, PoolingGeometry, PoolMethod
from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place
from paratrain.proto.caffe_pb2 import LRNParameter

__all__ = ["LRNLayer"]


@register_layer("LRN")
class LRNLayer(Layer):
    """Divides every value by a power of the squares around it.

    - ACROSS_CHANNELS: ``y = x (k + alpha / local_size * sum of x^2 over local_size channels)^-beta``; bottom (N, C, ...).
    - WITHIN_CHANNEL: ``y = x (1 + alpha * mean of x^2 over local_size x local_size pixels)^-beta``; bottom (N, C, H, W).

    Pixels that the window has outside the image count as zeros in the mean; ``k`` has no say there, as in Caffe.

    Gradient, with s for the sum in brackets and a for the factor of x^2 in it (alpha / local_size, or alpha /
    local_size^2): dx_i = s_i^-beta dy_i - 2 a beta x_i * sum of dy_j y_j / s_j over the j whose windows hold i.
    Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.lrn_param
        if parameter.local_size % 2 == 0:
            raise self.error(f"local_size is {parameter.local_size}; it must be odd, so that the window has a middle")
        self._within = parameter.norm_region == LRNParameter.WITHIN_CHANNEL
        self._shape: tuple[int, ...] | None = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        if len(shape) != 4 if self._within else len(shape) < 2:
            wanted = "4 axes (N, C, H, W)" if self._within else "at least 2 axes (N, C, ...)"
            raise self.error(f"{self.bottom_name(0)} is {shape}; this takes {wanted}", ShapeMismatchError)
        top[0].reshape(*shape)
        if shape == self._shape:
            return
        self._shape = shape
        self._make_primitives(shape, bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, y = self.read(bottom[0]), self.write(top[0])
        if self._within:
            self._forward_within(x, y)
        else:
            self._normalization.forward(x, y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        x, y, dy, dx = self.read(bottom[0]), self.read(top[0]), self.read_diff(top[0]), self.write_diff(bottom[0])
        if self._within:
            self._backward_within(x, y, dy, dx)
        else:
            self._normalization.backward(x, y, dy, dx)

    def _make_primitives(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Make what computes bottoms of this shape."""
        parameter = self.parameter.lrn_param
        size = parameter.local_size
        if self._within:
            batch, channels, height, width = shape
            self._pooling = self.backend.pooling(
                PoolingGeometry(
                    method=PoolMethod.AVE,
                    batch=batch,
                    channels=channels,
                    spatial=(height, width),
                    kernel=(size, size),
                    stride=(1, 1),
                    pad=(size // 2, size // 2),
                    output=(height, width),
                ),
                dtype,
            )
            self._squares, self._scale, self._power = (self.xp.empty(shape, dtype) for _ in range(3))
        else:
            geometry = LocalResponseGeometry(shape, size, parameter.alpha, parameter.beta, parameter.k)
            self._normalization = self.backend.local_response_normalization(geometry, dtype)

    def _forward_within(self, x: Any, y: Any) -> None:
        """With s = 1 + alpha * mean(x^2): y = x s^-beta. Keeps s and s^-beta."""
        parameter = self.parameter.lrn_param
        xp = self.xp
        xp.multiply(x, x, out=self._squares)
        self._pooling.forward(self._squares, self._scale, None)
        xp.multiply(self._scale, parameter.alpha, out=self._scale)
        xp.add(self._scale, 1, out=self._scale)
        xp.power(self._scale, -parameter.beta, out=self._power)
        xp.multiply(x, self._power, out=y)

    def _backward_within(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """dx = dy s^-beta + 2 x * (gradient of the mean applied to -alpha beta dy y / s)."""
        parameter = self.parameter.lrn_param
        xp = self.xp
        ratio = self._squares
        xp.multiply(dy, y, out=ratio)
        xp.divide(ratio, self._scale, out=ratio)
        xp.multiply(ratio, -2 * parameter.alpha * parameter.beta, out=ratio)
        # An average does not look at its own input on the way back.
        self._pooling.backward(x, ratio, dx)
        xp.multiply(dx, x, out=dx)
        xp.multiply(dy, self._power, out=ratio)
        xp.add(dx, ratio, out=dx)
