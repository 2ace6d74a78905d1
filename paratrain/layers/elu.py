"""ELU: exponential linear units."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import LayerParameter

__all__ = ["ELULayer"]


@register_layer("ELU")
class ELULayer(NeuronLayer):
    """y = l x where x > 0, else l ``alpha`` (exp(x) - 1); dx = l dy where x > 0, else dy (y + l alpha).

    The factor l is ``lambda`` (1; a field of NVCaffe). As long as alpha is not negative and l positive, y > 0 tells where
    x > 0; else, in place, those places are kept from forward to backward, a byte for each value.
    Source: Clevert, Unterthiner, Hochreiter, "Fast and accurate deep network learning by exponential linear units", 2015.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._alpha = parameter.elu_param.alpha
        self._factor: float = getattr(parameter.elu_param, "lambda")  # a word of Python
        self._shows_signs = self._alpha >= 0 and self._factor > 0
        self._positive, self._missing = Buffer(self.xp), Buffer(self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]), self.write(top[0])
        if bottom[0] is top[0] and self.needs_backward and not self._shows_signs:
            xp.greater(x, 0, out=self._positive.get(x.shape, bool))
        low = self.forward_scratch(x.shape, x.dtype)
        xp.minimum(x, 0, out=low)
        xp.expm1(low, out=low)
        low *= self._alpha
        xp.maximum(x, 0, out=y)
        y += low
        if self._factor != 1:
            y *= self._factor

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, y = self.xp, self.read(top[0])
        slope = self.scratch.get(y.shape, y.dtype)
        limit = self._factor * self._alpha
        if self._shows_signs:
            # min(y, 0) + l alpha is the slope where x is not positive, and l alpha elsewhere: there l (1 - alpha) is missing.
            xp.minimum(y, 0, out=slope)
            slope += limit
            if self._alpha != 1:
                positive = xp.greater(y, 0, out=self._positive.get(y.shape, bool))
                missing = xp.multiply(positive, self._factor - limit, out=self._missing.get(y.shape, y.dtype))
                slope += missing
        else:
            positive = self._positive.get(y.shape, bool)
            if bottom[0] is not top[0]:
                xp.greater(self.read(bottom[0]), 0, out=positive)
            xp.add(y, limit, out=slope)
            xp.copyto(slope, slope.dtype.type(self._factor), where=positive)
        xp.multiply(self.read_diff(top[0]), slope, out=self.write_diff(bottom[0]))
