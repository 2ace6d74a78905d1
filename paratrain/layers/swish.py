"""Swish: a value times its own sigmoid."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import LayerParameter

__all__ = ["SwishLayer"]


@register_layer("Swish")
class SwishLayer(NeuronLayer):
    """y = x s, where s = 1 / (1 + exp(-beta x)); dx = dy (beta y + s (1 - beta y)).

    s is kept from forward to backward, so that it works in place.
    Source: Ramachandran, Zoph, Le, "Searching for activation functions", 2017.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._beta = parameter.swish_param.beta
        self._sigmoid = Buffer(self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]), self.write(top[0])
        sigmoid = self._sigmoid.get(x.shape, x.dtype) if self.needs_backward else self.xp.empty(x.shape, x.dtype)
        # 1 / (1 + exp(-z)) = 0.5 tanh(0.5 z) + 0.5, which cannot overflow.
        xp.multiply(x, 0.5 * self._beta, out=sigmoid)
        xp.tanh(sigmoid, out=sigmoid)
        sigmoid *= 0.5
        sigmoid += 0.5
        xp.multiply(x, sigmoid, out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            xp, y = self.xp, self.read(top[0])
            slope = self.scratch.get(y.shape, y.dtype)
            # beta y + s (1 - beta y) = s + beta y (1 - s).
            sigmoid = self._sigmoid.get(y.shape, y.dtype)
            xp.subtract(1, sigmoid, out=slope)
            slope *= y
            slope *= self._beta
            slope += sigmoid
            xp.multiply(self.read_diff(top[0]), slope, out=self.write_diff(bottom[0]))
