"""Convolution of every channel with its own kernel: sums of shifted images, without columns.

For each offset in the kernel, the whole (padded) image times one weight is added to the top. With stride 1 a plane is taken
as one long row of the padded image's width, so that an offset is a shift of that row; the pixels where it runs over the
edge of the image are computed too and left out at the end. Planes are taken in groups that stay in the cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.numpy.scratch import Scratch

__all__ = ["DepthwiseConvolution"]

Array = npt.NDArray[Any]
_View = tuple[slice, ...]

_GROUP_BYTES = 1 << 18  # of padded planes per group: with as much for the top they fit a second-level cache


class DepthwiseConvolution:
    """A convolution over two spatial axes with as many groups as channels and one output for each."""

    def __init__(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        self.geometry = g = geometry
        self._dtype = np.dtype(dtype)
        self._scratch = scratch
        self._output = g.output_spatial
        (stride_h, stride_w), (dilation_h, dilation_w) = g.stride, g.dilation
        self._is_flat = stride_h == stride_w == 1
        self._padded = tuple(n + 2 * pad for n, pad in zip(g.spatial, g.pad, strict=True))
        inside = (slice(pad, pad + n) for n, pad in zip(g.spatial, g.pad, strict=True))
        self._inside: _View = (slice(None), slice(None), *inside)
        rows, width = self._output[0], self._padded[1]
        # What of a padded plane an offset meets: a run of the flat plane, or rows and columns.
        self._views: list[tuple[tuple[int, int], _View]] = []
        for i, j in itertools.product(range(g.kernel[0]), range(g.kernel[1])):
            top, left = i * dilation_h, j * dilation_w
            if self._is_flat:
                start = top * width + left
                view: _View = (slice(None), slice(None), slice(start, start + (rows - 1) * width + self._output[1]))
            else:
                ends = (top + stride_h * (rows - 1) + 1, left + stride_w * (self._output[1] - 1) + 1)
                view = (slice(None), slice(None), slice(top, ends[0], stride_h), slice(left, ends[1], stride_w))
            self._views.append(((i, j), view))

    @staticmethod
    def suits(geometry: ConvolutionGeometry) -> bool:
        """Whether the geometry is one of these."""
        g = geometry
        return len(g.spatial) == 2 and 1 < g.groups == g.channels == g.output_channels

    def forward(self, bottom: Array, weights: Array, bias: Array | None, top: Array) -> None:
        for part, channels in self._groups():
            plane, out, product = self._take(bottom[part].shape[:2])
            self._pad(bottom[part], plane)
            factors = self._factors(weights[channels])
            for index, (offset, view) in enumerate(self._views):
                np.multiply(self._seen(plane)[view], factors[offset], out=product if index else out)
                if index:
                    np.add(out, product, out=out)
            result = self._valid(out)
            if bias is None:
                np.copyto(top[part], result)
            else:
                np.add(result, bias[channels].reshape(-1, 1, 1), out=top[part])

    def backward_data(self, top_diff: Array, weights: Array, bottom_diff: Array) -> None:
        for part, channels in self._groups():
            plane, diff, product = self._take(top_diff[part].shape[:2])
            self._spread(top_diff[part], diff)
            plane.fill(0)
            factors = self._factors(weights[channels])
            for offset, view in self._views:
                np.multiply(diff, factors[offset], out=product)
                met = self._seen(plane)[view]
                np.add(met, product, out=met)
            np.copyto(bottom_diff[part], plane[self._inside])

    def backward_weights(self, bottom: Array, top_diff: Array, weights_diff: Array) -> None:
        sums = "ncl,ncl->c" if self._is_flat else "ncyx,ncyx->c"
        for part, channels in self._groups():
            plane, diff, _ = self._take(top_diff[part].shape[:2])
            self._pad(bottom[part], plane)
            self._spread(top_diff[part], diff)
            for (i, j), view in self._views:
                weights_diff[channels, 0, i, j] += np.einsum(sums, self._seen(plane)[view], diff)

    def backward_bias(self, top_diff: Array, bias_diff: Array) -> None:
        np.add(bias_diff, top_diff.sum(axis=(0, 2, 3)), out=bias_diff)

    def _groups(self) -> Iterator[tuple[tuple[slice, slice], slice]]:
        """Yield parts of (N, C): several images of all channels, or one image of some; and the channels again."""
        g = self.geometry
        planes = max(_GROUP_BYTES // (math.prod(self._padded) * self._dtype.itemsize), 1)
        images, channels = max(planes // g.channels, 1), min(planes, g.channels)
        for image, channel in itertools.product(range(0, g.batch, images), range(0, g.channels, channels)):
            some = slice(channel, min(channel + channels, g.channels))
            yield (slice(image, min(image + images, g.batch)), some), some

    def _take(self, shape: tuple[int, ...]) -> list[Array]:
        """Return scratch for planes of (images, channels): padded, and two of the size that an offset meets."""
        rows, columns = self._output
        met = ((rows - 1) * self._padded[1] + columns,) if self._is_flat else (rows, columns)
        shapes = ((*shape, *self._padded), (*shape, *met), (*shape, *met))
        return self._scratch.take(*((each, self._dtype) for each in shapes))

    def _pad(self, bottom: Array, plane: Array) -> None:
        if any(self.geometry.pad):
            plane.fill(0)
        plane[self._inside] = bottom

    def _seen(self, plane: Array) -> Array:
        return plane.reshape(*plane.shape[:2], -1) if self._is_flat else plane

    def _factors(self, weights: Array) -> dict[tuple[int, int], Array]:
        """Return the weight of each offset as (channels, 1) or (channels, 1, 1)."""
        shape = (-1, 1) if self._is_flat else (-1, 1, 1)
        return {(i, j): weights[:, 0, i, j].reshape(shape) for (i, j), _ in self._views}

    def _valid(self, out: Array) -> Array:
        """See the pixels of the top in what the offsets gave."""
        if not self._is_flat:
            return out
        rows, columns = self._output
        width, item = self._padded[1], out.itemsize
        strides = (*out.strides[:2], width * item, item)
        valid: Array = np.ndarray((*out.shape[:2], rows, columns), out.dtype, out, strides=strides)
        return valid

    def _spread(self, top_diff: Array, diff: Array) -> None:
        """Write the top's diff to where the offsets give it, and 0 between."""
        if self._is_flat and self._output[1] != self._padded[1]:
            diff.fill(0)
        self._valid(diff)[...] = top_diff
