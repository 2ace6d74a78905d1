"""ReLU6: a ReLU that ends at 6."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.masking import keep_where
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import LayerParameter

__all__ = ["ReLU6Layer"]


@register_layer("ReLU6")
class ReLU6Layer(NeuronLayer):
    """y = min(max(x, 0), 6) + ``negative_slope`` min(x, 0); dx = dy where 0 < x < 6, slope dy where x <= 0, else 0.

    Works in place for slopes of at least 0, since y then lies in the same of the three parts as x.
    Source: Sandler and others, "MobileNetV2", 2018, and the layer of that name in the forks that train it.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._slope = parameter.relu6_param.negative_slope
        self._inside, self._below, self._bits = Buffer(self.xp), Buffer(self.xp), Buffer(self.xp)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self._slope < 0 and bottom[0] is top[0]:
            raise self.error(f"cannot work in place with negative_slope {self._slope:g}, below 0; rename the top")
        super().reshape(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]), self.write(top[0])
        if self._slope == 0:
            xp.clip(x, 0, 6, out=y)
            return
        below = self.forward_scratch(x.shape, x.dtype)
        xp.minimum(x, 0, out=below)
        below *= self._slope
        xp.clip(x, 0, 6, out=y)
        y += below

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, x = self.xp, self.read(bottom[0])
        top_diff, bottom_diff = self.read_diff(top[0]), self.write_diff(bottom[0])
        inside, below = self._inside.get(x.shape, bool), self._below.get(x.shape, bool)
        xp.greater(x, 0, out=inside)
        xp.less(x, 6, out=below)
        inside &= below
        if self._slope == 0:
            keep_where(xp, inside, top_diff, bottom_diff, self._bits)
            return
        factor = self.scratch.get(x.shape, x.dtype)
        xp.less_equal(x, 0, out=below)
        xp.multiply(below, self._slope, out=factor, dtype=factor.dtype)
        factor += inside
        xp.multiply(top_diff, factor, out=bottom_diff)
