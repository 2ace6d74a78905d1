"""ArgMax: where the highest values are."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import canonical_axis, refuse_in_place
from paratrain.proto import LayerParameter

__all__ = ["ArgMaxLayer"]


@register_layer("ArgMax")
class ArgMaxLayer(Layer):
    """The ``top_k`` highest values, in falling order; of equal ones the one with the larger index first. No gradient.

    With ``axis``: among the values along it; the top has the bottom's shape with top_k instead of that axis and holds
    the indices, or the values themselves with ``out_max_val``. Without: among all the values of an item of the batch;
    the top (N, 1, top_k, 1 ...), of the bottom's number of axes but at least 3, holds indices into the flattened item,
    and with ``out_max_val`` is (N, 2, top_k, 1 ...): the indices, then the values. Indices are floats.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._top_k, self._gives_values = parameter.argmax_param.top_k, parameter.argmax_param.out_max_val
        self._has_axis = parameter.argmax_param.HasField("axis")
        self._negated = Buffer(self.xp)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape, x = bottom[0].shape, bottom[0]
        if self._has_axis:
            axis = canonical_axis(self, x, self.parameter.argmax_param.axis, "argmax_param.axis")
            self._sizes = (x.count_between(0, axis), shape[axis], x.count_between(axis + 1))
            top_shape = [*shape[:axis], self._top_k, *shape[axis + 1 :]]
        else:
            if not shape:
                raise self.error(f"{self.bottom_name(0)} has no axes; ArgMax needs at least (N,)", ShapeMismatchError)
            self._sizes = (shape[0], x.count_between(1), 1)
            top_shape = [shape[0], 2 if self._gives_values else 1, self._top_k, *[1] * (len(shape) - 3)]
        if not 1 <= self._top_k <= self._sizes[1]:
            raise self.error(
                f"top_k is {self._top_k}; it must be from 1 to {self._sizes[1]}, the number of values of "
                f"{self.bottom_name(0)} {shape} to choose from",
                ShapeMismatchError,
            )
        top[0].reshape(*top_shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x = self.xp, self.read(bottom[0]).reshape(self._sizes)
        outer, count, inner = self._sizes
        # Read from the end, the first of equals is the one with the largest index.
        negated = xp.negative(x[:, ::-1], out=self._negated.get(self._sizes, x.dtype))
        if self._top_k == 1:
            chosen = count - 1 - xp.argmin(negated, axis=1)[:, None]
        else:
            chosen = count - 1 - xp.argsort(negated, axis=1, kind="stable")[:, : self._top_k]
        if self._has_axis:
            y = self.write(top[0]).reshape(outer, self._top_k, inner)
            y[...] = xp.take_along_axis(x, chosen, axis=1) if self._gives_values else chosen
            return
        y = self.write(top[0]).reshape(outer, 2 if self._gives_values else 1, self._top_k)
        y[:, 0] = chosen[:, :, 0]
        if self._gives_values:
            y[:, 1] = xp.take_along_axis(x, chosen, axis=1)[:, :, 0]

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            raise self.error(f"has no gradient, but {self.bottom_name(0)} wants one; give propagate_down: false")
