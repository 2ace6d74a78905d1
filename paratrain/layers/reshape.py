"""Reshape: the same values in another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import register_layer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.view import ViewLayer

__all__ = ["ReshapeLayer"]


@register_layer("Reshape")
class ReshapeLayer(ViewLayer):
    """``num_axes`` axes from ``axis`` on, by default all, are replaced by those of ``shape``.

    A dim of 0 keeps the bottom's axis at that place; one dim of -1 takes what is left. A negative ``axis`` counts
    places between axes from the end: -1 is behind the last. ``num_axes`` -1 means all that follow.
    ``data`` and ``diff`` are the bottom's own memory.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        start, end = self._replaced_range(shape)
        dims = list(self.parameter.reshape_param.shape.dim)
        for index, dim in enumerate(dims):
            if dim == 0:
                if start + index >= len(shape):
                    raise self._misfit(shape, f"dim {index} is 0 to keep axis {start + index}; there is none")
                dims[index] = shape[start + index]
            elif dim < -1:
                raise self.error(f"dim {index} of shape is {dim}; give a size, 0 to keep it or -1 for the rest")
        self._infer(dims, shape, start, end)
        new_shape = (*shape[:start], *dims, *shape[end:])
        if math.prod(new_shape) != bottom[0].count:
            raise self._misfit(shape, f"{new_shape} has {math.prod(new_shape)} values instead of {bottom[0].count}")
        top[0].reshape(*new_shape)
        self.share(bottom[0], top[0])

    def _replaced_range(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the first replaced axis and the one behind the last."""
        parameter = self.parameter.reshape_param
        start = parameter.axis if parameter.axis >= 0 else len(shape) + parameter.axis + 1
        if not 0 <= start <= len(shape):
            raise self._misfit(shape, f"axis is {parameter.axis}; give one from {-len(shape) - 1} to {len(shape)}")
        end = len(shape) if parameter.num_axes == -1 else start + parameter.num_axes
        if not start <= end <= len(shape):
            raise self._misfit(shape, f"num_axes is {parameter.num_axes}, but {len(shape) - start} follow")
        return start, end

    def _infer(self, dims: list[int], shape: tuple[int, ...], start: int, end: int) -> None:
        """Put the size that is left in the place of a -1, in ``dims`` itself."""
        wanted = [index for index, dim in enumerate(dims) if dim == -1]
        if len(wanted) > 1:
            raise self.error(f"reshape_param.shape {dims} has {len(wanted)} dims of -1; only one can be worked out")
        if wanted:
            replaced = math.prod(shape[start:end])
            explicit = math.prod(dim for dim in dims if dim != -1)
            if explicit == 0 or replaced % explicit:
                raise self._misfit(shape, f"{replaced} values cannot be shared out over dims {dims}")
            dims[wanted[0]] = replaced // explicit

    def _misfit(self, shape: tuple[int, ...], message: str) -> Exception:
        return self.error(f"{self.bottom_name(0)} {shape} does not fit: {message}", ShapeMismatchError)
