"""ROIPooling: the maxima of a grid of cells in each region of interest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place

__all__ = ["ROIPoolingLayer"]

Array = npt.NDArray[Any]
Pair = tuple[Any, ...]


@register_layer("ROIPooling")
class ROIPoolingLayer(Layer):
    """bottom[0] (N, C, H, W) and regions, bottom[1] (R, 5), give (R, C, ``pooled_h``, ``pooled_w``).

    A region is (image, x1, y1, x2, y2), corners included, in pixels of the network's input: times ``spatial_scale`` and
    rounded, halves away from 0, they are pixels of the bottom. It is at least 1 x 1. Cell i of a height h reaches from
    floor(i h / pooled_h) to ceil((i + 1) h / pooled_h), not included, and is cut at the image's edges; a cell without
    pixels gives 0. The gradient goes to the maximum's pixel, the first of equals in row order; regions have none.
    Source: Girshick, "Fast R-CNN", 2015.

    A cell is covered by four blocks of 2^a x 2^b pixels that may overlap; the maxima of all blocks of one size follow from
    those of half the size. So the work grows with the logarithm of the cells' sizes and no loop meets pixels or regions.
    """

    bottom_range = (2, 2)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.roi_pooling_param
        self._cells = (parameter.pooled_h, parameter.pooled_w)
        if min(self._cells) < 1:
            raise self.error(f"pooled_h and pooled_w are {self._cells}; both must be given and be at least 1")
        if not parameter.spatial_scale > 0:
            raise self.error(f"roi_pooling_param.spatial_scale is {parameter.spatial_scale:g}; it must be above 0")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        images, regions = bottom[0].shape, bottom[1].shape
        if len(images) != 4:
            raise self.error(f"{self.bottom_name(0)} is {images}; ROIPooling takes (N, C, H, W)", ShapeMismatchError)
        if not regions or bottom[1].count_between(1) != 5:
            raise self.error(
                f"{self.bottom_name(1)} is {regions}; regions are (R, 5): image, x1, y1, x2, y2", ShapeMismatchError
            )
        top[0].reshape(regions[0], images[1], *self._cells)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x = self.xp, self.read(bottom[0])
        _, channels, height, width = x.shape
        image, first, size = self._read_cells(bottom[1], bottom[0])
        level = np.where((size > 0).all(axis=0), np.frexp(size)[1] - 1, -1)
        best = xp.zeros((len(image), channels), x.dtype)
        place = xp.full((len(image), channels), -1, np.int32)
        # Channels last: one block's maxima over all channels lie side by side.
        values = xp.ascontiguousarray(x.transpose(0, 2, 3, 1))
        pixels = xp.arange(height * width, dtype=np.int32).reshape(1, height, width, 1)
        for exponents, blocks in _maxima_of_blocks(xp, (values, xp.broadcast_to(pixels, values.shape)), level):
            chosen = np.flatnonzero((level == np.array(exponents)[:, None]).all(axis=0))
            start = first[:, chosen]
            last = start + size[:, chosen] - (1 << np.array(exponents))[:, None]
            where = xp.asarray(image[chosen])
            corners = [
                tuple(part[where, xp.asarray(rows), xp.asarray(columns)] for part in blocks)
                for rows in (start[0], last[0])
                for columns in (start[1], last[1])
            ]
            found = corners[0]
            for corner in corners[1:]:
                found = _larger(xp, found, corner)
            best[xp.asarray(chosen)], place[xp.asarray(chosen)] = found
        regions = (-1, *self._cells, channels)
        self.write(top[0])[...] = best.reshape(regions).transpose(0, 3, 1, 2)
        self._place = xp.ascontiguousarray(place.reshape(regions).transpose(0, 3, 1, 2))
        self._image = xp.asarray(image.reshape(-1, 1, *self._cells))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[1]:
            raise self.error(f"has no gradient by {self.bottom_name(1)}, the regions; remove its propagate_down")
        if not propagate_down[0]:
            return
        xp, diff = self.xp, self.write_diff(bottom[0])
        _, channels, height, width = diff.shape
        plane = self._image * channels + xp.arange(channels).reshape(-1, 1, 1)
        filled = self._place >= 0
        diff[...] = 0
        target = (plane * (height * width) + self._place)[filled]
        self.backend.add_at(diff.reshape(-1), target, self.read_diff(top[0])[filled])

    def _read_cells(self, blob: Blob, images: Blob) -> tuple[Array, Array, Array]:
        """Return of all cells the image (K,), the first row and column (2, K), and the height and width (2, K)."""
        regions: Array = blob.read_data(None).reshape(blob.shape[0], 5)
        good = (regions[:, 0] > -1) & (regions[:, 0] < images.shape[0]) & np.isfinite(regions).all(axis=1)
        if not good.all():
            row = int(np.argmin(good))
            raise self.error(
                f"{self.bottom_name(1)}: region {row} is {regions[row].tolist()}; it must be (image, x1, y1, x2, y2) "
                f"with an image from 0 to {images.shape[0] - 1}"
            )
        # In the blob's own precision, as the fork computes: a float32 product may round a border to the next pixel.
        kind = regions.dtype.type
        scaled = regions[:, 1:] * kind(self.parameter.roi_pooling_param.spatial_scale)
        corners = np.trunc(scaled + np.copysign(kind(0.5), scaled)).astype(np.int64)
        edges = []
        for start, end, cells, limit in zip(
            (corners[:, 1], corners[:, 0]), (corners[:, 3], corners[:, 2]), self._cells, images.shape[2:], strict=True
        ):
            cell = (np.maximum(end - start + 1, 1).astype(kind) / kind(cells))[:, None]
            steps = np.arange(cells + 1).astype(kind)
            low, high = np.floor(steps[:-1] * cell), np.ceil(steps[1:] * cell)
            edges.append([np.clip(edge.astype(np.int64) + start[:, None], 0, limit) for edge in (low, high)])
        (top, bottom), (left, right) = edges
        shape = (2, len(regions), *self._cells)
        first, size = np.empty(shape, np.int64), np.empty(shape, np.int64)
        first[0], first[1] = top[:, :, None], left[:, None]
        size[0], size[1] = (bottom - top)[:, :, None], (right - left)[:, None]
        image = np.repeat(regions[:, 0].astype(np.int64), self._cells[0] * self._cells[1])
        return image, first.reshape(2, -1), size.reshape(2, -1)


def _maxima_of_blocks(xp: Any, blocks: Pair, level: Array) -> Iterator[tuple[tuple[int, int], Pair]]:
    """Yield, for every pair of exponents in ``level`` (2, K), the maxima of the blocks of so many rows and columns, and
    their pixels. ``blocks`` are those of one pixel, (N, H, W, C).
    """
    for down in range(int(level[0].max(initial=-1)) + 1):
        if down:
            step = 1 << (down - 1)
            blocks = _larger(xp, *((tuple(part[:, rows] for part in blocks)) for rows in _halves(step)))
        wide, wanted = blocks, set(level[1][level[0] == down].tolist())
        for right in range(max(wanted, default=-1) + 1):
            if right:
                step = 1 << (right - 1)
                wide = _larger(xp, *((tuple(part[:, :, columns] for part in wide)) for columns in _halves(step)))
            if right in wanted:
                yield (down, right), wide


def _halves(step: int) -> tuple[slice, slice]:
    return slice(None, -step), slice(step, None)


def _larger(xp: Any, one: Pair, other: Pair) -> Pair:
    """Return the larger values with their pixels; of equal ones that of the lower pixel."""
    takes_other = (other[0] > one[0]) | ((other[0] == one[0]) & (other[1] < one[1]))
    return xp.where(takes_other, other[0], one[0]), xp.where(takes_other, other[1], one[1])
