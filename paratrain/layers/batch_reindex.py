"""BatchReindex: another choice of the items of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.indices import add_rows, read_indices, take_rows
from paratrain.proto import LayerParameter

__all__ = ["BatchReindexLayer"]


@register_layer("BatchReindex")
class BatchReindexLayer(Layer):
    """y[i] = x[index[i]]: items may be left out, repeated and put in another order.

    bottom[0] x (N, ...), bottom[1] index (M,), whole numbers from 0 to N - 1; top (M, ...). dx[j] = sum of the dy[i]
    with index[i] = j, 0 for items that are left out; the index has no gradient.
    """

    bottom_range = (2, 2)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._sorted = Buffer(self.xp)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        if not bottom[0].axis_count:
            raise self.error(f"{self.bottom_name(0)} has no axes; it must be at least (N,)", ShapeMismatchError)
        if bottom[1].axis_count != 1:
            raise self.error(
                f"{self.bottom_name(1)}, the index, is {bottom[1].shape}; it must have one axis", ShapeMismatchError
            )
        top[0].reshape(bottom[1].count, *bottom[0].shape[1:])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        index = read_indices(self, bottom[1], 1, bottom[0].shape[0], f"items of {self.bottom_name(0)}")
        take_rows(self, self.read(bottom[0]), index, self.write(top[0]))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[1]:
            raise self.error(
                f"{self.bottom_name(1)} is an index and has no gradient; give propagate_down: false for it"
            )
        if propagate_down[0]:
            index = read_indices(self, bottom[1], 1, bottom[0].shape[0], f"items of {self.bottom_name(0)}")
            bottom_diff = self.write_diff(bottom[0])
            bottom_diff.fill(0)
            add_rows(self, bottom_diff, index, self.read_diff(top[0]), self._sorted)
