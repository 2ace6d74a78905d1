"""Concat: bottoms side by side along one axis."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place

__all__ = ["ConcatLayer"]


@register_layer("Concat")
class ConcatLayer(Layer):
    """top = the bottoms one after the other along ``axis`` (default 1, or the old ``concat_dim``).

    All other axes must be equal. Gradient: each bottom's part of the top's diff. One bottom is copied.
    """

    bottom_range = (1, None)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        parameter, shape = self.parameter.concat_param, bottom[0].shape
        field = "concat_dim" if parameter.HasField("concat_dim") else "axis"
        if field == "concat_dim" and parameter.HasField("axis"):
            raise self.error("concat_param gives both axis and concat_dim, the old name of it; keep axis")
        axis = canonical_axis(self, bottom[0], getattr(parameter, field), f"concat_param.{field}")
        for index, blob in enumerate(bottom[1:], start=1):
            if blob.axis_count != len(shape) or (*blob.shape[:axis], shape[axis], *blob.shape[axis + 1 :]) != shape:
                raise self.error(
                    f"{self.bottom_name(index)} {blob.shape} does not fit beside {self.bottom_name(0)} {shape}: "
                    f"all axes but axis {axis} must be equal",
                    ShapeMismatchError,
                )
        top[0].reshape(*shape[:axis], sum(blob.shape[axis] for blob in bottom), *shape[axis + 1 :])
        self._axis = axis
        # Seen as a matrix with a row for each index before the axis, a bottom is a range of columns of the top.
        self._rows = top[0].count_between(0, axis)
        self._columns = [blob.count_between(axis) for blob in bottom]

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        whole, start = self.write(top[0]).reshape(self._rows, sum(self._columns)), 0
        for blob, columns in zip(bottom, self._columns, strict=True):
            whole[:, start : start + columns] = self.read(blob).reshape(self._rows, columns)
            start += columns

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        whole, start = self.read_diff(top[0]).reshape(self._rows, sum(self._columns)), 0
        for blob, columns, wanted in zip(bottom, self._columns, propagate_down, strict=True):
            if wanted:
                self.write_diff(blob).reshape(self._rows, columns)[...] = whole[:, start : start + columns]
            start += columns
