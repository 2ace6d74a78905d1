"""BNLL: the binomial normal log likelihood, a smooth ReLU."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import LayerParameter

__all__ = ["BNLLLayer"]

_HIGHEST = 50.0  # from here on the slope is 1 to the last bit, and exp is far from overflow


@register_layer("BNLL")
class BNLLLayer(NeuronLayer):
    """y = log(1 + exp(x)), computed as max(x, 0) + log(1 + exp(-|x|)), which cannot overflow.

    dx = dy e / (1 + e), with e = exp(min(x, 50)). In place, x is kept from forward to backward, where there is one.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._kept, self._divisor = Buffer(self.xp), Buffer(self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]), self.write(top[0])
        if bottom[0] is top[0] and self.needs_backward:
            self._kept.get(x.shape, x.dtype)[...] = x
        rest = self.forward_scratch(x.shape, x.dtype)
        xp.absolute(x, out=rest)
        xp.negative(rest, out=rest)
        xp.exp(rest, out=rest)
        xp.log1p(rest, out=rest)
        xp.maximum(x, 0, out=y)
        y += rest

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, top_diff = self.xp, self.read_diff(top[0])
        shape, dtype = top_diff.shape, top_diff.dtype
        x = self._kept.get(shape, dtype) if bottom[0] is top[0] else self.read(bottom[0])
        slope, divisor = self.scratch.get(shape, dtype), self._divisor.get(shape, dtype)
        xp.minimum(x, _HIGHEST, out=slope)
        xp.exp(slope, out=slope)
        xp.add(slope, 1, out=divisor)
        slope /= divisor
        xp.multiply(top_diff, slope, out=self.write_diff(bottom[0]))
