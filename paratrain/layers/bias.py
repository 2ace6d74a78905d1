"""Bias: add a learned or given value along some axes."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.covering import covered_shape, covering_sizes
from paratrain.layers.learnable import add_learnable_blob

__all__ = ["BiasLayer"]


@register_layer("Bias")
class BiasLayer(Layer):
    """y = x + b. b has the shape of ``num_axes`` axes of x from ``axis`` on and is repeated along the others.

    With one bottom b is blob 0, filled by ``filler`` (constant 0 if not given); ``num_axes`` -1 means all axes that
    follow, 0 one number. With two bottoms b is bottom[1] and num_axes is not read. Gradients: dx = dy; db = sum of dy
    over the repeated axes. Works in place in bottom[0] and then has nothing to do for dx.
    """

    bottom_range = (1, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        bias = self.parameter.bias_param
        if len(bottom) == 1:
            shape = covered_shape(self, bottom[0], bias.axis, bias.num_axes, "bias_param")
            add_learnable_blob(self, shape, bottom[0].dtype, bias.filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if len(bottom) > 1 and (bottom[1] is top[0] or bottom[1] is bottom[0]):
            raise self.error(f"{self.bottom_name(1)}, the bias, must not also be the top or the first bottom")
        owner = self.bottom_name(1) if len(bottom) > 1 else "the bias"
        axis = self.parameter.bias_param.axis
        self._sizes = covering_sizes(self, bottom[0], self._bias_blob(bottom), axis, "bias_param", owner)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, y = self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(self._sizes)
        self.xp.add(x, self.read(self._bias_blob(bottom)).reshape(-1, 1), out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        top_diff = self.read_diff(top[0]).reshape(self._sizes)
        if len(bottom) > 1 and propagate_down[1]:
            self.xp.sum(top_diff, axis=(0, 2), out=self.write_diff(bottom[1]).reshape(-1))
        if len(bottom) == 1 and self.param_propagate_down[0]:
            bias_diff = self.write_diff(self.blobs[0]).reshape(-1)
            bias_diff += top_diff.sum(axis=(0, 2))
        if propagate_down[0] and bottom[0] is not top[0]:
            self.write_diff(bottom[0])[...] = self.read_diff(top[0])

    def _bias_blob(self, bottom: Sequence[Blob]) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]
