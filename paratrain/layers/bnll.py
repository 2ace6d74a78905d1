"""BNLL: the binomial normal log likelihood, a smooth ReLU."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.neuron import NeuronLayer

__all__ = ["BNLLLayer"]


@register_layer("BNLL")
class BNLLLayer(NeuronLayer):
    """y = log(1 + exp(x)), computed as max(x, 0) + log(1 + exp(-|x|)), which cannot overflow.

    dx = dy / (1 + exp(-x)), computed from y as dy (1 - exp(-y)): works in place.
    """

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]), self.write(top[0])
        rest = self.scratch.get(x.shape, x.dtype)
        xp.absolute(x, out=rest)
        xp.negative(rest, out=rest)
        xp.exp(rest, out=rest)
        xp.log1p(rest, out=rest)
        xp.maximum(x, 0, out=y)
        y += rest

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            xp, y = self.xp, self.read(top[0])
            slope = self.scratch.get(y.shape, y.dtype)
            xp.negative(y, out=slope)
            xp.expm1(slope, out=slope)
            xp.negative(slope, out=slope)
            xp.multiply(self.read_diff(top[0]), slope, out=self.write_diff(bottom[0]))
