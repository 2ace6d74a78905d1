"""Convolution as one matrix product per group of images, over columns that hold the windows (im2col).

Two orders of the columns are kept, since copying windows is fast only where long runs of values stay together:

- :class:`ImagesFirst`, (images, channels * kernel, pixels): a run is a row of the output. The product lands in the top.
- :class:`ImagesLast`, (channels * kernel, pixels * images): the images are turned to the innermost axis first, so a run
  is a row of the output times the number of images. The product must be turned back.

The first wins where output rows are long, the second where they are short. Groups are cut so that the columns stay in
the cache between being written and being multiplied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import Convolution, ConvolutionGeometry
from paratrain.backends.numpy.scratch import Scratch

__all__ = ["ImagesFirst", "ImagesLast", "create_convolution"]

Array = npt.NDArray[Any]
Index = tuple[Any, ...]

_COLUMN_BYTES = 1 << 20  # of columns per group: half of a usual second-level cache
_PRODUCT_BYTES = 8 << 20  # of weight gradients of single images that are held at once
_LEAST_IMAGES_LAST = 8  # fewer images innermost make neither long runs nor quick transpositions
_LONG_ROW = 20  # from this output width on, ImagesFirst copies fast enough
_LONG_POINTWISE_ROW = 12  # the same for 1x1 kernels, for which it copies nothing


def create_convolution(geometry: ConvolutionGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> Convolution:
    """Return the convolution in the order that is faster for this geometry."""
    images_first = ImagesFirst(geometry, dtype, scratch)
    width = geometry.output_spatial[-1] if geometry.spatial else 1
    if geometry.batch == 1 or width >= (_LONG_POINTWISE_ROW if images_first.is_pointwise else _LONG_ROW):
        return images_first
    return ImagesLast(geometry, dtype, scratch)


def _view(shape: tuple[int, ...], source: Array, strides: tuple[int, ...]) -> Array:
    """Return a view of the C-contiguous ``source`` with other axes; far quicker to make than ``as_strided``."""
    view: Array = np.ndarray(shape, source.dtype, source, strides=strides)
    return view


class _ColumnConvolution:
    """What both orders share: sizes, the groups of images, the places of the kernel's offsets, the bias."""

    _leading: tuple[slice, ...]
    """Selects all of the axes that come before the kernel's in the columns and before the spatial ones in the images."""

    def __init__(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        self.geometry = g = geometry
        self._dtype = np.dtype(dtype)
        self._scratch = scratch
        self._output = g.output_spatial
        self._pixel_count = math.prod(self._output)
        self._group_outputs = g.output_channels // g.groups
        self._depth = g.channels // g.groups * math.prod(g.kernel)
        self._padded = tuple(n + 2 * pad for n, pad in zip(g.spatial, g.pad, strict=True))
        inside = (slice(pad, pad + n) for n, pad in zip(g.spatial, g.pad, strict=True))
        self._inside: Index = (*self._leading, *inside)
        self._is_padded = any(g.pad)
        # 1x1 kernels read the bottom as it lies: its columns are the bottom itself.
        self.is_pointwise = all(k == 1 for k in g.kernel) and all(s == 1 for s in g.stride) and not self._is_padded
        # For every offset in the kernel, its columns and the pixels of the padded image that it meets.
        self._offsets: list[tuple[Index, Index]] = []
        for offset in itertools.product(*(range(k) for k in g.kernel)):
            starts = [o * dilation for o, dilation in zip(offset, g.dilation, strict=True)]
            sizes = zip(starts, g.stride, self._output, strict=True)
            pixels = (slice(a, a + step * (n - 1) + 1, step) for a, step, n in sizes)
            self._offsets.append(((*self._leading, *offset), (*self._leading, *pixels)))
        self._ones = np.ones(self._pixel_count, self._dtype)
        self._images = 1

    @property
    def _column_bytes(self) -> int:
        """Bytes of the columns of one image."""
        return self.geometry.groups * self._depth * self._pixel_count * self._dtype.itemsize

    def _image_groups(self) -> Iterator[slice]:
        for start in range(0, self.geometry.batch, self._images):
            yield slice(start, min(start + self._images, self.geometry.batch))

    def _grouped_weights(self, weights: Array) -> Array:
        return weights.reshape(self.geometry.groups, self._group_outputs, self._depth)

    def backward_bias(self, top_diff: Array, bias_diff: Array) -> None:
        g = self.geometry
        sums = np.matmul(top_diff.reshape(g.batch, g.output_channels, self._pixel_count), self._ones)
        np.add(bias_diff, np.add.reduce(sums, axis=0), out=bias_diff)


class ImagesFirst(_ColumnConvolution):
    """Columns are (images, groups, depth, pixels), products (images, groups, outputs, pixels): the top as it lies."""

    _leading = (slice(None), slice(None))  # images, channels

    def __init__(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        super().__init__(geometry, dtype, scratch)
        product_bytes = geometry.output_channels * self._depth * self._dtype.itemsize
        images = min(_COLUMN_BYTES // self._column_bytes, _PRODUCT_BYTES // product_bytes, geometry.batch)
        self._images = max(images, 1)

    def forward(self, bottom: Array, weights: Array, bias: Array | None, top: Array) -> None:
        g = self.geometry
        grouped = self._grouped_weights(weights)
        for images in self._image_groups():
            columns, _ = self._unfold(bottom[images])
            out = top[images].reshape(-1, g.groups, self._group_outputs, self._pixel_count)
            np.matmul(grouped, columns, out=out)
            if bias is not None:
                np.add(out, bias.reshape(g.groups, self._group_outputs, 1), out=out)

    def backward_weights(self, bottom: Array, top_diff: Array, weights_diff: Array) -> None:
        g = self.geometry
        product_shape = (g.groups, self._group_outputs, self._depth)
        total = weights_diff.reshape(product_shape)
        for images in self._image_groups():
            count = images.stop - images.start
            columns, (products,) = self._unfold(bottom[images], (count, *product_shape))
            diff = top_diff[images].reshape(count, g.groups, self._group_outputs, self._pixel_count)
            np.matmul(diff, columns.transpose(0, 1, 3, 2), out=products)
            for product in products:
                np.add(total, product, out=total)

    def backward_data(self, top_diff: Array, weights: Array, bottom_diff: Array) -> None:
        g = self.geometry
        transposed = self._grouped_weights(weights).transpose(0, 2, 1)
        for images in self._image_groups():
            count = images.stop - images.start
            diff = top_diff[images].reshape(count, g.groups, self._group_outputs, self._pixel_count)
            grouped_shape = (count, g.groups, self._depth, self._pixel_count)
            if self.is_pointwise:
                np.matmul(transposed, diff, out=bottom_diff[images].reshape(grouped_shape))
                continue
            columns, padded = self._scratch.take(
                ((count, g.channels, *g.kernel, *self._output), self._dtype),
                (self._padded_shape(count), self._dtype),
            )
            np.matmul(transposed, diff, out=columns.reshape(grouped_shape))
            self._fold(columns, padded, bottom_diff[images])

    def unfold(self, bottom: Array, columns: Array) -> None:
        """Write the windows of the whole batch to ``columns`` (N, C, *kernel, *output)."""
        for images in self._image_groups():
            (padded,) = self._scratch.take((self._padded_shape(images.stop - images.start), self._dtype))
            self._copy_windows(bottom[images], columns[images], padded)

    def fold(self, columns: Array, bottom_diff: Array) -> None:
        """Write to ``bottom_diff`` the sum of the ``columns`` (N, C, *kernel, *output) that meet each pixel."""
        for images in self._image_groups():
            (padded,) = self._scratch.take((self._padded_shape(images.stop - images.start), self._dtype))
            self._fold(columns[images], padded, bottom_diff[images])

    def _fold(self, columns: Array, padded: Array, bottom_diff: Array) -> None:
        target = padded if self._is_padded else bottom_diff
        target.fill(0)
        for offset, pixels in self._offsets:
            np.add(target[pixels], columns[offset], out=target[pixels])
        if self._is_padded:
            bottom_diff[...] = padded[self._inside]

    def _padded_shape(self, count: int) -> tuple[int, ...]:
        return (count, self.geometry.channels, *self._padded) if self._is_padded else (0,)

    def _copy_windows(self, bottom: Array, columns: Array, padded: Array) -> None:
        """Fill ``columns`` (images, C, *kernel, *output) with the windows of these images."""
        if self._is_padded:
            padded.fill(0)
            padded[self._inside] = bottom
        source, g = (padded if self._is_padded else bottom), self.geometry
        outer, inner = source.strides[:2], source.strides[2:]
        strides = (
            *outer,
            *(stride * dilation for stride, dilation in zip(inner, g.dilation, strict=True)),
            *(stride * step for stride, step in zip(inner, g.stride, strict=True)),
        )
        np.copyto(columns, _view(columns.shape, source, strides))

    def _unfold(self, bottom: Array, *more: tuple[int, ...]) -> tuple[Array, list[Array]]:
        """Return the columns (images, groups, depth, pixels) of these images, and scratch arrays of the shapes ``more``."""
        g = self.geometry
        count = bottom.shape[0]
        grouped_shape = (count, g.groups, self._depth, self._pixel_count)
        if self.is_pointwise:
            return bottom.reshape(grouped_shape), self._scratch.take(*((shape, self._dtype) for shape in more))
        columns, padded, *others = self._scratch.take(
            ((count, g.channels, *g.kernel, *self._output), self._dtype),
            (self._padded_shape(count), self._dtype),
            *((shape, self._dtype) for shape in more),
        )
        self._copy_windows(bottom, columns, padded)
        return columns.reshape(grouped_shape), others


class ImagesLast(_ColumnConvolution):
    """Columns are (groups, depth, pixels * images), products (groups, outputs, pixels * images)."""

    _leading = (slice(None),)  # channels

    def __init__(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        super().__init__(geometry, dtype, scratch)
        self._images = max(min(max(_COLUMN_BYTES // self._column_bytes, _LEAST_IMAGES_LAST), geometry.batch), 1)
        axes = len(geometry.spatial)
        self._turn = (*range(1, axes + 2), 0)  # (N, C, spatial ...) seen as (C, spatial ..., N)

    def forward(self, bottom: Array, weights: Array, bias: Array | None, top: Array) -> None:
        grouped = self._grouped_weights(weights)
        for images in self._image_groups():
            columns, padded, products = self._take(images)
            np.matmul(grouped, self._unfold(bottom[images], columns, padded), out=products)
            turned = self._as_top(products)
            if bias is None:
                np.copyto(top[images].transpose(self._turn), turned)
            else:
                np.add(turned, bias.reshape(-1, *(1,) * (turned.ndim - 1)), out=top[images].transpose(self._turn))

    def backward_weights(self, bottom: Array, top_diff: Array, weights_diff: Array) -> None:
        if not self.geometry.batch:
            return
        # The product with the columns in front is the faster one; its result is the transposed gradient.
        shape = (self.geometry.groups, self._depth, self._group_outputs)
        for images in self._image_groups():
            # ``total`` comes first in the scratch and the first group is the largest: it stays where it is.
            total, product, columns, padded, diff = self._take(images, shape, shape)
            np.copyto(self._as_top(diff), top_diff[images].transpose(self._turn))
            grouped = self._unfold(bottom[images], columns, padded)
            np.matmul(grouped, diff.transpose(0, 2, 1), out=product if images.start else total)
            if images.start:
                np.add(total, product, out=total)
        grouped = self._grouped_weights(weights_diff)
        np.add(grouped, total.transpose(0, 2, 1), out=grouped)

    def backward_data(self, top_diff: Array, weights: Array, bottom_diff: Array) -> None:
        transposed = self._grouped_weights(weights).transpose(0, 2, 1)
        for images in self._image_groups():
            columns, padded, diff = self._take(images)
            np.copyto(self._as_top(diff), top_diff[images].transpose(self._turn))
            np.matmul(transposed, diff, out=columns.reshape(self.geometry.groups, self._depth, -1))
            padded.fill(0)
            for offset, pixels in self._offsets:
                np.add(padded[pixels], columns[offset], out=padded[pixels])
            np.copyto(bottom_diff[images].transpose(self._turn), padded[self._inside])

    def _take(self, images: slice, *first: tuple[int, ...]) -> list[Array]:
        """Return scratch: of the shapes ``first``, columns, padded images (C, spatial ..., N) and products.

        Columns are (C, kernel ..., output ..., N), products (groups, outputs, pixels * N).
        """
        g = self.geometry
        count = images.stop - images.start
        shapes = (
            *first,
            (g.channels, *g.kernel, *self._output, count),
            (g.channels, *self._padded, count),
            (g.groups, self._group_outputs, self._pixel_count * count),
        )
        return self._scratch.take(*((shape, self._dtype) for shape in shapes))

    def _as_top(self, products: Array) -> Array:
        """See products as (C, spatial ..., N)."""
        return products.reshape(self.geometry.output_channels, *self._output, -1)

    def _unfold(self, bottom: Array, columns: Array, padded: Array) -> Array:
        """Fill ``columns`` with the windows of these images and return them as (groups, depth, pixels * images)."""
        g = self.geometry
        if self._is_padded:
            padded.fill(0)
        np.copyto(padded[self._inside], bottom.transpose(self._turn))
        outer, *inner, innermost = padded.strides
        strides = (
            outer,
            *(stride * dilation for stride, dilation in zip(inner, g.dilation, strict=True)),
            *(stride * step for stride, step in zip(inner, g.stride, strict=True)),
            innermost,
        )
        np.copyto(columns, _view(columns.shape, padded, strides))
        return columns.reshape(g.groups, self._depth, -1)
