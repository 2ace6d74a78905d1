"""Slice: one bottom cut into tops along one axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place

__all__ = ["SliceLayer"]


@register_layer("Slice")
class SliceLayer(Layer):
    """The tops are the bottom's parts along ``axis`` (default 1, or the old ``slice_dim``), in order.

    ``slice_point`` gives where each top but the first begins; without any, all tops are equally long. Gradient: the
    tops' diffs side by side. One top is a copy.
    """

    top_range = (1, None)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        parameter, shape = self.parameter.slice_param, bottom[0].shape
        field = "slice_dim" if parameter.HasField("slice_dim") else "axis"
        if field == "slice_dim" and parameter.HasField("axis"):
            raise self.error("slice_param gives both axis and slice_dim, the old name of it; keep axis")
        axis = canonical_axis(self, bottom[0], getattr(parameter, field), f"slice_param.{field}")
        lengths = self._lengths(list(parameter.slice_point), shape, axis, len(top))
        for blob, length in zip(top, lengths, strict=True):
            blob.reshape(*shape[:axis], length, *shape[axis + 1 :])
        self._axis = axis
        # Seen as a matrix with a row for each index before the axis, a top is a range of columns of the bottom.
        self._rows = bottom[0].count_between(0, axis)
        self._columns = [length * bottom[0].count_between(axis + 1) for length in lengths]

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        whole, start = self.read(bottom[0]).reshape(self._rows, sum(self._columns)), 0
        for blob, columns in zip(top, self._columns, strict=True):
            self.write(blob).reshape(self._rows, columns)[...] = whole[:, start : start + columns]
            start += columns

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        whole, start = self.write_diff(bottom[0]).reshape(self._rows, sum(self._columns)), 0
        for blob, columns in zip(top, self._columns, strict=True):
            whole[:, start : start + columns] = self.read_diff(blob).reshape(self._rows, columns)
            start += columns

    def _lengths(self, points: list[int], shape: tuple[int, ...], axis: int, top_count: int) -> list[int]:
        """Return how long each top is along the axis."""
        size = shape[axis]
        where = f"axis {axis} of {self.bottom_name(0)} {shape}"
        if not points:
            if size % top_count:
                raise self.error(
                    f"{where} has {size} entries, which {top_count} tops cannot share equally; give slice_point",
                    ShapeMismatchError,
                )
            return [size // top_count] * top_count
        if len(points) != top_count - 1:
            raise self.error(f"{top_count} tops need {top_count - 1} slice_point; the prototxt gives {len(points)}")
        edges = [0, *points, size]
        lengths = [stop - start for start, stop in itertools.pairwise(edges)]
        if any(length <= 0 for length in lengths):
            raise self.error(f"slice_point {points} must increase and lie inside {where}", ShapeMismatchError)
        return lengths
