"""Permute: the axes in another order."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import register_layer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.view import ViewLayer

__all__ = ["PermuteLayer"]


@register_layer("Permute")
class PermuteLayer(ViewLayer):
    """Axis i of the top is axis ``order[i]`` of the bottom; axes that ``order`` leaves out follow in their own order.

    The gradient goes back by the inverse order. An order that changes nothing makes the top the bottom's own memory.
    Source: SSD's fork of Caffe (weiliu89/caffe).
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        axes, given = bottom[0].axis_count, list(self.parameter.permute_param.order)
        for axis in given:
            if axis >= axes:
                raise self.error(
                    f"permute_param.order names axis {axis}, but {self.bottom_name(0)} {bottom[0].shape} has {axes} axes",
                    ShapeMismatchError,
                )
            if given.count(axis) > 1:
                raise self.error(f"permute_param.order {given} names axis {axis} more than once")
        self._order = (*given, *(axis for axis in range(axes) if axis not in given))
        self._changes_nothing = self._order == tuple(range(axes))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shape = bottom[0].shape
        if len(shape) != len(self._order):
            raise self.error(
                f"{self.bottom_name(0)} has become {shape}, but the order {self._order} is for {len(self._order)} axes",
                ShapeMismatchError,
            )
        top[0].reshape(*(shape[axis] for axis in self._order))
        if self._changes_nothing:
            self.share(bottom[0], top[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self._changes_nothing:
            super().forward(bottom, top)
        else:
            self.write(top[0])[...] = self.read(bottom[0]).transpose(self._order)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if self._changes_nothing:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            self.write_diff(bottom[0]).transpose(self._order)[...] = self.read_diff(top[0])
