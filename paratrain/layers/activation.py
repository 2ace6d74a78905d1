"""ReLU, Sigmoid and TanH."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.masking import keep_where
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import LayerParameter

__all__ = ["ReLULayer", "SigmoidLayer", "TanHLayer"]


@register_layer("ReLU")
class ReLULayer(NeuronLayer):
    """y = x where x > 0, else ``negative_slope`` x; dx = dy where x > 0, else ``negative_slope`` dy.

    In place, backward sees y instead of x: for a slope of at least 0, y > 0 holds just where x > 0 does. A negative
    slope in place loses the sign of x, so the places where x > 0 are kept from forward to backward.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._slope = parameter.relu_param.negative_slope
        self._mask = Buffer(self.xp)
        self._bits = Buffer(self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]), self.write(top[0])
        if self._slope == 0:
            xp.maximum(x, 0, out=y)
            return
        if self.needs_backward and self._keeps_mask(bottom, top):
            xp.greater(x, 0, out=self._mask.get(x.shape, bool))
        sloped = self.forward_scratch(x.shape, x.dtype) if bottom[0] is top[0] else y
        xp.multiply(x, self._slope, out=sloped)
        # Of x and slope * x, the wanted one is the larger for a slope up to 1, the smaller above.
        (xp.maximum if self._slope <= 1 else xp.minimum)(x, sloped, out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, x = self.xp, self.read(bottom[0])
        top_diff, bottom_diff = self.read_diff(top[0]), self.write_diff(bottom[0])
        mask = self._mask.get(x.shape, bool)
        if not self._keeps_mask(bottom, top):
            xp.greater(x, 0, out=mask)
        if self._slope == 0:
            keep_where(xp, mask, top_diff, bottom_diff, self._bits)
            return
        factor = self.scratch.get(x.shape, x.dtype)
        xp.multiply(mask, 1.0 - self._slope, out=factor, dtype=factor.dtype)
        xp.add(factor, self._slope, out=factor)
        xp.multiply(top_diff, factor, out=bottom_diff)

    def _keeps_mask(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
        return self._slope < 0 and bottom[0] is top[0]


@register_layer("Sigmoid")
class SigmoidLayer(NeuronLayer):
    """y = 1 / (1 + exp(-x)), computed as 0.5 tanh(0.5 x) + 0.5, which cannot overflow; dx = dy y (1 - y)."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, y = self.xp, self.write(top[0])
        xp.multiply(self.read(bottom[0]), 0.5, out=y)
        xp.tanh(y, out=y)
        y *= 0.5
        y += 0.5

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            xp, y = self.xp, self.read(top[0])
            slope = self.scratch.get(y.shape, y.dtype)
            xp.subtract(1, y, out=slope)
            slope *= y
            xp.multiply(self.read_diff(top[0]), slope, out=self.write_diff(bottom[0]))


@register_layer("TanH")
class TanHLayer(NeuronLayer):
    """y = tanh(x); dx = dy (1 - y^2)."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.xp.tanh(self.read(bottom[0]), out=self.write(top[0]))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            xp, y = self.xp, self.read(top[0])
            slope = self.scratch.get(y.shape, y.dtype)
            xp.multiply(y, y, out=slope)
            xp.subtract(1, slope, out=slope)
            xp.multiply(self.read_diff(top[0]), slope, out=self.write_diff(bottom[0]))
