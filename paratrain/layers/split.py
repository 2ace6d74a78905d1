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

    Tops whose diff nobody has touched have none and take no memory for it. Where only one top ever has one, as a net can
    tell, its ``diff`` is the bottom's own memory as well. Nets insert the layer wherever a blob has several readers.
    """

    top_range = (1, None)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        for blob in top:
            blob.reshape_like(bottom[0])
            blob.share_data(bottom[0])
        self.share_memory(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob in top:
            if blob.data_memory is not bottom[0].data_memory:  # a net has moved it
                blob.share_data(bottom[0])
        self.share_memory(bottom, top)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        total = self.write_diff(bottom[0])
        given = [blob for blob in top if not blob.diff_is_untouched]
        rest = [self.read_diff(blob) for blob in given if blob.diff_memory is not bottom[0].diff_memory]
        if len(rest) == len(given):
            if len(rest) > 1:
                self.xp.add(rest[0], rest[1], out=total)
            else:
                total[...] = rest[0] if rest else 0
            rest = rest[2:]
        for diff in rest:
            total += diff

    def share_memory(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        index = self.only_top_with_gradient
        if index is not None and top[index].diff_memory is not bottom[0].diff_memory:
            top[index].share_diff(bottom[0])
