"""Checks that several layers make of their blobs, with messages that name layer, blob and shapes."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer

__all__ = ["canonical_axis", "refuse_in_place", "top_name"]


def canonical_axis(layer: Layer, blob: Blob, axis: int, field: str, bottom_index: int = 0) -> int:
    """Return ``axis`` of a bottom counted from the front. Raises ShapeMismatchError that names ``field`` otherwise."""
    axes = blob.axis_count
    if not -axes <= axis < axes:
        allowed = f"give one from {-axes} to {axes - 1}" if axes else "it holds one value and no axes"
        raise layer.error(
            f"{field} is {axis}, but {layer.bottom_name(bottom_index)} has the shape {blob.shape}: {allowed}",
            ShapeMismatchError,
        )
    return axis % axes


def refuse_in_place(layer: Layer, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
    """Raise LayerError if a top is one of the bottoms."""
    for index, blob in enumerate(bottom):
        if any(blob is other for other in top):
            raise layer.error(f"cannot work in place: {layer.bottom_name(index)} is also a top; rename the top")


def top_name(layer: Layer, index: int) -> str:
    """``top[1] 'b'``, for messages."""
    names = layer.parameter.top
    return f"top[{index}] '{names[index]}'" if index < len(names) else f"top[{index}]"
