"""Interp: resize images by bilinear interpolation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import refuse_in_place
from paratrain.proto import LayerParameter

__all__ = ["InterpLayer"]

_LINES_PER_BLOCK = 64


class _Line:
    """Linear interpolation from ``before`` to ``after`` places along one axis, the ends of both on each other.

    It is a banded matrix (after, before), kept as blocks of rows with the columns that those reach.
    """

    def __init__(self, xp: Any, before: int, after: int, dtype: npt.DTypeLike) -> None:
        places = np.arange(after)
        at = places * ((before - 1) / (after - 1) if after > 1 else 0.0)
        low = np.minimum(at.astype(np.int64), before - 1)
        high = np.minimum(low + 1, before - 1)
        self.blocks: list[tuple[slice, slice, Any]] = []
        for start in range(0, after, _LINES_PER_BLOCK):
            rows = slice(start, min(start + _LINES_PER_BLOCK, after))
            columns = slice(int(low[rows][0]), int(high[rows][-1]) + 1)
            matrix = np.zeros((rows.stop - rows.start, columns.stop - columns.start))
            line = places[: rows.stop - rows.start]
            np.add.at(matrix, (line, low[rows] - columns.start), 1 - (at - low)[rows])
            np.add.at(matrix, (line, high[rows] - columns.start), (at - low)[rows])
            self.blocks.append((rows, columns, xp.asarray(matrix.astype(dtype))))

    def __iter__(self) -> Iterator[tuple[slice, slice, Any]]:
        return iter(self.blocks)


@register_layer("Interp")
class InterpLayer(Layer):
    """Bottom (N, C, H, W), first cut by -``pad_beg`` pixels at the top and left and -``pad_end`` at the bottom and right,
    resized to (N, C, height, width); the pixels of the four corners keep their values.

    Pixel y of the top lies at y (H - 1) / (height - 1) of the cut bottom and is interpolated between its two
    neighbours, likewise along the width. The size is, with h for height and width alike, the first of these that is given:
    ``shrink_factor`` alone: (h - 1) / shrink_factor + 1; ``zoom_factor`` alone: h + (h - 1) (zoom_factor - 1);
    ``height`` and ``width``; shrink_factor and then zoom_factor; that of a second bottom, which is not read otherwise.
    Source: Chen and others, "DeepLab", 2016 (also PSPNet's fork).
    """

    bottom_range = (1, 2)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._tall = Buffer(self.xp)
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.interp_param
        for field in ("pad_beg", "pad_end"):
            if getattr(parameter, field) > 0:
                raise self.error(
                    f"interp_param.{field} is {getattr(parameter, field)}; only cropping, at most 0, is defined"
                )
        for field in ("shrink_factor", "zoom_factor"):
            if getattr(parameter, field) < 1:
                raise self.error(f"interp_param.{field} is {getattr(parameter, field)}; it must be at least 1")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape, parameter = bottom[0].shape, self.parameter.interp_param
        for index, blob in enumerate(bottom):
            if blob.axis_count != 4:
                raise self.error(
                    f"{self.bottom_name(index)} is {blob.shape}; Interp takes 4 axes (N, C, H, W)", ShapeMismatchError
                )
        height, width = (size + parameter.pad_beg + parameter.pad_end for size in shape[2:])
        if min(height, width) < 1:
            raise self.error(
                f"pad_beg {parameter.pad_beg} and pad_end {parameter.pad_end} leave {height} x {width} pixels "
                f"of {self.bottom_name(0)} {shape}",
                ShapeMismatchError,
            )
        output = self._output(height, bottom, 0), self._output(width, bottom, 1)
        if min(output) < 1:
            raise self.error(f"the output would have {output[0]} x {output[1]} pixels; both must be at least 1")
        start = -parameter.pad_beg
        self._inside = (slice(None), slice(None), slice(start, start + height), slice(start, start + width))
        top[0].reshape(*shape[:2], *output)
        if self._shapes != (shape, output):
            self._shapes = shape, output
            self._rows = _Line(self.xp, height, output[0], bottom[0].dtype)
            self._columns = _Line(self.xp, width, output[1], bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0])[self._inside], self.write(top[0])
        tall = self._tall.get((*y.shape[:3], x.shape[3]), y.dtype)
        for rows, reach, matrix in self._rows:
            tall[:, :, rows] = xp.matmul(matrix, x[:, :, reach])
        flat, out = tall.reshape(-1, x.shape[3]), y.reshape(-1, y.shape[3])
        for columns, reach, matrix in self._columns:
            out[:, columns] = xp.matmul(flat[:, reach], matrix.T)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if len(bottom) > 1 and propagate_down[1]:
            self.write_diff(bottom[1])[...] = 0
        if not propagate_down[0]:
            return
        xp, top_diff, bottom_diff = self.xp, self.read_diff(top[0]), self.write_diff(bottom[0])
        bottom_diff[...] = 0
        inside = bottom_diff[self._inside]
        tall = self._tall.get((*top_diff.shape[:3], inside.shape[3]), top_diff.dtype)
        tall[...] = 0
        flat, diff = tall.reshape(-1, inside.shape[3]), top_diff.reshape(-1, top_diff.shape[3])
        for columns, reach, matrix in self._columns:
            flat[:, reach] += xp.matmul(diff[:, columns], matrix)
        for rows, reach, matrix in self._rows:
            inside[:, :, reach] += xp.matmul(matrix.T, tall[:, :, rows])

    def _output(self, size: int, bottom: Sequence[Blob], axis: int) -> int:
        """Return the height (axis 0) or width (axis 1) of the top for ``size`` pixels of the cut bottom."""
        parameter = self.parameter.interp_param
        shrinks, zooms = parameter.HasField("shrink_factor"), parameter.HasField("zoom_factor")
        shrunk = (size - 1) // parameter.shrink_factor + 1
        if shrinks and not zooms:
            return shrunk
        if zooms and not shrinks:
            return size + (size - 1) * (parameter.zoom_factor - 1)
        if parameter.HasField("height") and parameter.HasField("width"):
            return parameter.width if axis else parameter.height
        if shrinks:
            return shrunk + (shrunk - 1) * (parameter.zoom_factor - 1)
        if len(bottom) == 2:
            return bottom[1].shape[2 + axis]
        raise self.error("give height and width, zoom_factor or shrink_factor, or a second bottom of the wanted size")
