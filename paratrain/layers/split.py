"""Split: one blob for several readers."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place

__all__ = ["SplitLayer"]


@register_layer("Split")
class SplitLayer(Layer):
    """Every top is the bottom: its ``data`` is the bottom's own memory. Gradient: the sum of the tops' diffs, in order.

    Nets insert it wherever a blob is the bottom of several layers.
    """

    top_range = (1, None)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        for blob in top:
            blob.reshape_like(bottom[0])
            blob.share_data(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob in top:
            if blob.data_memory is not bottom[0].data_memory:  # a net has moved it
                blob.share_data(bottom[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        total = self.write_diff(bottom[0])
        if len(top) == 1:
            total[...] = self.read_diff(top[0])
            return
        self.xp.add(self.read_diff(top[0]), self.read_diff(top[1]), out=total)
        for blob in top[2:]:
            total += self.read_diff(blob)
