"""Flatten: several axes become one."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place
from paratrain.layers.view import ViewLayer

__all__ = ["FlattenLayer"]


@register_layer("Flatten")
class FlattenLayer(ViewLayer):
    """The axes from ``axis`` (default 1) to ``end_axis`` (default -1, included) become one: (N, C, H, W) to (N, C H W).

    ``data`` and ``diff`` are the bottom's own memory.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        parameter, shape = self.parameter.flatten_param, bottom[0].shape
        start = canonical_axis(self, bottom[0], parameter.axis, "flatten_param.axis")
        end = canonical_axis(self, bottom[0], parameter.end_axis, "flatten_param.end_axis") + 1
        if start > end:
            raise self.error(
                f"axis {parameter.axis} lies behind end_axis {parameter.end_axis} in {self.bottom_name(0)} {shape}",
                ShapeMismatchError,
            )
        top[0].reshape(*shape[:start], bottom[0].count_between(start, end), *shape[end:])
        self.share(bottom[0], top[0])
