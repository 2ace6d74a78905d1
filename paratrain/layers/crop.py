"""Crop: a part of one blob, as large as another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place

__all__ = ["CropLayer"]


@register_layer("Crop")
class CropLayer(Layer):
    """The part of bottom[0] that has the sizes of bottom[1] along all axes from ``axis`` on and starts at ``offset``.

    ``offset`` is given once for all of these axes, or once for each (0 where it is missing). Only the shape of bottom[1]
    counts; it gets no gradient (its diff is set to 0 where one is wanted). dx is dy in the part and 0 around it.
    """

    bottom_range = (2, 2)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape, wanted = bottom[0].shape, bottom[1].shape
        crop = self.parameter.crop_param
        axis = canonical_axis(self, bottom[0], crop.axis, "crop_param.axis")
        if len(wanted) < len(shape):
            raise self.error(
                f"{self.bottom_name(1)} {wanted} gives the sizes of {self.bottom_name(0)} {shape} from axis {axis} on, "
                f"but has only {len(wanted)} axes",
                ShapeMismatchError,
            )
        offsets, axis_count = list(crop.offset), len(shape) - axis
        if len(offsets) not in (0, 1, axis_count):
            raise self.error(
                f"offset is given {len(offsets)} times; give it once, or once for each of the {axis_count} axes "
                f"from axis {axis} on"
            )
        if len(offsets) != axis_count:
            offsets = (offsets or [0]) * axis_count
        part = [slice(None)] * axis
        for index, offset in enumerate(offsets, axis):
            if offset + wanted[index] > shape[index]:
                raise self.error(
                    f"offset {offset} and size {wanted[index]} of {self.bottom_name(1)} {wanted} reach beyond axis {index} "
                    f"of {self.bottom_name(0)} {shape}",
                    ShapeMismatchError,
                )
            part.append(slice(offset, offset + wanted[index]))
        self._part: tuple[Any, ...] = tuple(part)
        top[0].reshape(*shape[:axis], *wanted[axis : len(shape)])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.write(top[0])[...] = self.read(bottom[0])[self._part]

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            bottom_diff = self.write_diff(bottom[0])
            bottom_diff.fill(0)
            bottom_diff[self._part] = self.read_diff(top[0])
        if propagate_down[1]:
            self.write_diff(bottom[1]).fill(0)
