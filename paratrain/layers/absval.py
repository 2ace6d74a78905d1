"""AbsVal: the absolute value."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.neuron import NeuronLayer

__all__ = ["AbsValLayer"]


@register_layer("AbsVal")
class AbsValLayer(NeuronLayer):
    """y = |x|; dx = dy sign(x), 0 where x is 0. Top of the bottom's shape; not in place, y does not tell the sign."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        super().reshape(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.xp.absolute(self.read(bottom[0]), out=self.write(top[0]))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            bottom_diff = self.write_diff(bottom[0])
            self.xp.sign(self.read(bottom[0]), out=bottom_diff)
            bottom_diff *= self.read_diff(top[0])
