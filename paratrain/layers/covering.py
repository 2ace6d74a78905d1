"""Blobs of values that are repeated along the axes of a bottom that they do not have: factors and biases."""

from __future__ import annotations

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer
from paratrain.layers.checks import canonical_axis

__all__ = ["covered_shape", "covering_sizes"]


def covered_shape(layer: Layer, x: Blob, axis: int, num_axes: int, message: str) -> tuple[int, ...]:
    """Return the shape of a learned blob that covers ``num_axes`` axes of bottom[0] from ``axis`` on.

    -1 stands for all axes that follow, 0 for one number. ``message`` ("scale_param") names the fields in errors. Raises
    ShapeMismatchError where ``x`` has no such axes.
    """
    if num_axes == 0:
        return ()
    first = canonical_axis(layer, x, axis, f"{message}.axis")
    if not -1 <= num_axes <= x.axis_count - first:
        raise layer.error(
            f"num_axes is {num_axes}, but {layer.bottom_name(0)} {x.shape} has {x.axis_count - first} axes "
            f"from axis {first} on",
            ShapeMismatchError,
        )
    return x.shape[first:] if num_axes == -1 else x.shape[first : first + num_axes]


def covering_sizes(layer: Layer, x: Blob, values: Blob, axis: int, message: str, owner: str) -> tuple[int, int, int]:
    """Return (outer, count, inner): as these axes of ``x``, bottom[0], each of the ``values`` is repeated outer * inner times.

    Raises ShapeMismatchError where the shape of ``values``, called ``owner`` in the message, is not that of the axes.
    """
    first = canonical_axis(layer, x, axis, f"{message}.axis") if values.axis_count else 0
    covered = x.shape[first : first + values.axis_count]
    if covered != values.shape:
        raise layer.error(
            f"{owner} {values.shape} does not fit {layer.bottom_name(0)} {x.shape}, {covered} from axis {first} on",
            ShapeMismatchError,
        )
    return x.count_between(0, first), values.count, x.count_between(first + values.axis_count)
