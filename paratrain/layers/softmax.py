"""Softmax along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.checks import canonical_axis
from paratrain.layers.neuron import NeuronLayer

__all__ = ["SoftmaxLayer", "softmax"]


def softmax(xp: Any, x: Any, y: Any) -> None:
    """Write y = exp(x) / sum of exp(x) along the middle axis of (outer, classes, inner) arrays; y may be x.

    The largest x is subtracted first, so that exp cannot overflow.
    """
    xp.subtract(x, x.max(axis=1, keepdims=True), out=y)
    xp.exp(y, out=y)
    xp.divide(y, y.sum(axis=1, keepdims=True), out=y)


@register_layer("Softmax")
class SoftmaxLayer(NeuronLayer):
    """y_c = exp(x_c) / sum over k of exp(x_k) along ``axis`` (default 1); dx_c = y_c (dy_c - sum over k of dy_k y_k).

    Works in place.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        axis = canonical_axis(self, bottom[0], self.parameter.softmax_param.axis, "softmax_param.axis")
        blob = bottom[0]
        self._sizes = (blob.count_between(0, axis), blob.shape[axis], blob.count_between(axis + 1))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        softmax(self.xp, self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(self._sizes))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, y = self.xp, self.read(top[0]).reshape(self._sizes)
        top_diff = self.read_diff(top[0]).reshape(self._sizes)
        bottom_diff = self.write_diff(bottom[0]).reshape(self._sizes)
        product = self.scratch.get(self._sizes, y.dtype)
        xp.multiply(top_diff, y, out=product)
        xp.subtract(top_diff, product.sum(axis=1, keepdims=True), out=bottom_diff)
        bottom_diff *= y
