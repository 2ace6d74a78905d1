"""Pooling by one array operation per offset in the window, never per pixel.

Window (y, x) takes the pixels (y * stride + i, x * stride + j) of the padded image: for a fixed offset (i, j) these are
one strided view, so a kernel of kh x kw takes kh + kw operations where the work can be split into rows and columns, else
kh * kw. Images are taken in groups that stay in the cache.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import PoolingGeometry
from paratrain.backends.numpy.scratch import Scratch

__all__ = ["AveragePooling", "MaxPooling", "WindowPooling"]

Array = npt.NDArray[Any]
Index = tuple[Any, ...]
Request = tuple[tuple[int, ...], npt.DTypeLike]  # an array to be taken from the scratch

_GROUP_BYTES = 1 << 20  # of bottom values per group of images


class WindowPooling(abc.ABC):
    """What all methods share: the reach of the windows, groups of images, padding with a neutral value."""

    _neutral: float

    def __init__(self, geometry: PoolingGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        self.geometry = g = geometry
        self._dtype = np.dtype(dtype)
        self._scratch = scratch
        # Rows and columns of the padded image that windows take; there may be more or fewer than the image has.
        self._reach = tuple((n - 1) * s + k for n, s, k in zip(g.output, g.stride, g.kernel, strict=True))
        shown = [min(n, r - pad) for n, r, pad in zip(g.spatial, self._reach, g.pad, strict=True)]
        self._image_part: Index = (..., *(slice(0, n) for n in shown))
        self._inside: Index = (..., *(slice(pad, pad + n) for pad, n in zip(g.pad, shown, strict=True)))
        self._is_padded = any(g.pad) or any(r > n for r, n in zip(self._reach, g.spatial, strict=True))
        self._covers_all = not self._is_padded and self._reach == tuple(g.spatial)
        self._rows, self._columns = (
            [slice(i, i + s * (n - 1) + 1, s) for i in range(k)]
            for n, s, k in zip(g.output, g.stride, g.kernel, strict=True)
        )
        image_bytes = g.channels * max(self._reach[0] * self._reach[1], 1) * self._dtype.itemsize
        self._images = max(min(_GROUP_BYTES // image_bytes, g.batch), 1)

    def _image_groups(self) -> Iterator[slice]:
        for start in range(0, self.geometry.batch, self._images):
            yield slice(start, min(start + self._images, self.geometry.batch))

    def _padded_shape(self, count: int) -> tuple[int, ...]:
        return (count, self.geometry.channels, *self._reach) if self._is_padded else (0,)

    def _pad(self, bottom: Array, padded: Array) -> Array:
        """Return an array of which windows reach no further than the end; the bottom itself where it will do."""
        if not self._is_padded:
            return bottom
        padded.fill(self._neutral)
        padded[self._inside] = bottom[self._image_part]
        return padded

    def _unpad(self, padded: Array, bottom_diff: Array) -> None:
        """Write the gradient of the padded image to that of the image."""
        bottom_diff.fill(0)
        bottom_diff[self._image_part] = padded[self._inside]

    def _reduce(self, operation: np.ufunc, source: Array, partial: Array, top: Array) -> None:
        """Write to ``top`` the windows of ``source`` reduced by ``operation``: rows first, then columns."""
        width = self._reach[1]
        first, *others = (source[..., rows, :width] for rows in self._rows)
        if others:
            operation(first, others[0], out=partial)
            first = partial
        for rows in others[1:]:
            operation(partial, rows, out=partial)
        if self.geometry.kernel[1] == 1:
            np.copyto(top, first[..., self._columns[0]])
            return
        operation(first[..., self._columns[0]], first[..., self._columns[1]], out=top)
        for columns in self._columns[2:]:
            operation(top, first[..., columns], out=top)

    def _partial_shape(self, count: int) -> tuple[int, ...]:
        return (count, self.geometry.channels, self.geometry.output[0], self._reach[1])

    @abc.abstractmethod
    def forward(self, bottom: Array, top: Array, mask: Array | None) -> None: ...

    @abc.abstractmethod
    def backward(self, bottom: Array, top_diff: Array, bottom_diff: Array) -> None: ...


class MaxPooling(WindowPooling):
    """The maximum; its gradient goes to the first of equal values in row order. A NaN in a window gives NaN."""

    _neutral = -np.inf

    def forward(self, bottom: Array, top: Array, mask: Array | None) -> None:
        for images in self._image_groups():
            count = images.stop - images.start
            padded, partial = self._scratch.take(
                (self._padded_shape(count), self._dtype), (self._partial_shape(count), self._dtype)
            )
            self._reduce(np.maximum, self._pad(bottom[images], padded), partial, top[images])
        if mask is not None:
            self._write_mask(bottom, top, mask)

    def backward(self, bottom: Array, top_diff: Array, bottom_diff: Array) -> None:
        # Windows that do not overlap meet every pixel at most once.
        overlap = any(k > s for k, s in zip(self.geometry.kernel, self.geometry.stride, strict=True))
        # Where they also leave no gaps, the gradient of a block of pixels takes the place of the pixels, for the cache.
        tiled = self.geometry.kernel == self.geometry.stride
        for images in self._image_groups():
            diff = top_diff[images]
            shape = self._phases_shape(diff.shape[0])
            requests: list[Request] = [
                (each, self._dtype)
                for each in (shape, (0,) if tiled else shape, diff.shape, self._padded_shape(diff.shape[0]))
            ]
            phases, phase_diffs, share, padded_diff = self._scratch.take(*requests)
            target = padded_diff if self._is_padded else bottom_diff[images]
            if tiled:
                phase_diffs = phases
            else:
                phase_diffs.fill(0)
            for pixels, chosen in self._winners(bottom[images], None, phases, requests):
                np.copyto(share, chosen)
                if overlap:
                    np.multiply(diff, share, out=share)
                    np.add(phase_diffs[pixels], share, out=phase_diffs[pixels])
                else:
                    np.multiply(diff, share, out=phase_diffs[pixels])
            if not self._covers_all:
                target.fill(0)
            for phase, place in self._phases(target):
                np.copyto(place, phase_diffs[phase][..., : place.shape[-2], : place.shape[-1]])
            if self._is_padded:
                self._unpad(padded_diff, bottom_diff[images])

    def _phases_shape(self, count: int) -> tuple[int, ...]:
        """The shape of the pixels sorted by their place within a stride, (stride, stride, N, C, rows, columns).

        There the pixels of one offset are a plain block: several times quicker to compare, multiply and add than pixels
        that lie a stride apart.
        """
        g = self.geometry
        rows, columns = (-(-reach // s) for reach, s in zip(self._reach, g.stride, strict=True))
        return (*g.stride, count, g.channels, rows, columns)

    def _phases(self, image: Array) -> Iterator[tuple[tuple[int, int], Array]]:
        """Yield every place within a stride, and the pixels of the image that have it."""
        height, width = self._reach
        for row, column in itertools.product(*(range(s) for s in self.geometry.stride)):
            yield (
                (row, column),
                image[..., row : height : self.geometry.stride[0], column : width : self.geometry.stride[1]],
            )

    def _winners(
        self, bottom: Array, top: Array | None, phases: Array, reserved: list[Request]
    ) -> Iterator[tuple[Index, Array]]:
        """Yield, for every offset in row order, its pixels in the phases and in which windows they are the first maximum.

        ``top`` are the maxima; None has them taken anew: in the backward pass a layer that works in place may have written
        over them. ``phases`` is where the pixels are sorted into; those of an offset may be changed once it was yielded if
        no other offset has them. ``reserved`` is what the caller holds at the front of the scratch, phases included.
        """
        g = self.geometry
        shape = (bottom.shape[0], g.channels, *g.output)
        *_, padded, chosen, free, partial, maxima = self._scratch.take(
            *reserved,
            (self._padded_shape(bottom.shape[0]), self._dtype),
            (shape, bool),
            (shape, bool),
            ((*phases.shape[1:-2], g.output[0], phases.shape[-1]) if top is None else (0,), self._dtype),
            (shape if top is None else (0,), self._dtype),
        )
        for phase, pixels in self._phases(self._pad(bottom, padded)):
            np.copyto(phases[phase][..., : pixels.shape[-2], : pixels.shape[-1]], pixels)
        if top is None:
            self._take_maxima(phases, partial, maxima)
            top = maxima
        for i, j in itertools.product(*(range(k) for k in g.kernel)):
            (down, row), (right, column) = divmod(i, g.stride[0]), divmod(j, g.stride[1])
            place = (row, column, ..., slice(down, down + g.output[0]), slice(right, right + g.output[1]))
            np.equal(phases[place], top, out=chosen)
            if i == j == 0:
                np.logical_not(chosen, out=free)
            else:
                np.logical_and(chosen, free, out=chosen)
                np.logical_xor(free, chosen, out=free)
            yield place, chosen

    def _take_maxima(self, phases: Array, partial: Array, maxima: Array) -> None:
        """Write the maximum of every window, from the pixels sorted into phases: over rows first, then over columns."""
        g = self.geometry
        for axis, source, out in ((0, phases, partial), (1, partial, maxima)):
            length, stride = g.output[axis], g.stride[axis]
            after: Index = (slice(None),) * (1 - axis)
            offsets = (divmod(offset, stride) for offset in range(g.kernel[axis]))
            places: list[Index] = [(phase, ..., slice(start, start + length), *after) for start, phase in offsets]
            first, *others = (source[place] for place in places)
            if not others:
                np.copyto(out, first)
            for values in others:
                np.maximum(first, values, out=out)
                first = out

    def _write_mask(self, bottom: Array, top: Array, mask: Array) -> None:
        """Write the index y * width + x of each maximum; -1 where a window holds no number."""
        g = self.geometry
        mask.fill(-1)
        starts = [np.arange(n) * s - pad for n, s, pad in zip(g.output, g.stride, g.pad, strict=True)]
        offsets = [(i, j) for i in range(g.kernel[0]) for j in range(g.kernel[1])]
        for images in self._image_groups():
            requests: list[Request] = [(self._phases_shape(images.stop - images.start), self._dtype)]
            winners = self._winners(bottom[images], top[images], self._scratch.take(*requests)[0], requests)
            for (i, j), (_, chosen) in zip(offsets, winners, strict=True):
                index = (starts[0][:, None] + i) * g.spatial[1] + (starts[1] + j)
                np.copyto(mask[images], index.astype(self._dtype), where=chosen)


class AveragePooling(WindowPooling):
    """The sum divided by the number of pixels that the window has inside the padded image, as Caffe does."""

    _neutral = 0.0

    def __init__(self, geometry: PoolingGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        super().__init__(geometry, dtype, scratch)
        sizes = []
        for axis in range(2):
            starts = np.arange(geometry.output[axis]) * geometry.stride[axis]
            end = geometry.spatial[axis] + 2 * geometry.pad[axis]
            sizes.append(np.minimum(starts + geometry.kernel[axis], end) - starts)
        self._scale = (1.0 / (sizes[0][:, None] * sizes[1])).astype(self._dtype)

    def forward(self, bottom: Array, top: Array, mask: Array | None) -> None:
        assert mask is None, "average pooling has no mask"
        for images in self._image_groups():
            count = images.stop - images.start
            padded, partial = self._scratch.take(
                (self._padded_shape(count), self._dtype), (self._partial_shape(count), self._dtype)
            )
            self._reduce(np.add, self._pad(bottom[images], padded), partial, top[images])
            np.multiply(top[images], self._scale, out=top[images])

    def backward(self, bottom: Array, top_diff: Array, bottom_diff: Array) -> None:
        width = self._reach[1]
        for images in self._image_groups():
            diff = top_diff[images]
            padded, partial, scaled = self._scratch.take(
                (self._padded_shape(diff.shape[0]), self._dtype),
                (self._partial_shape(diff.shape[0]), self._dtype),
                (diff.shape, self._dtype),
            )
            target = padded if self._is_padded else bottom_diff[images]
            np.multiply(diff, self._scale, out=scaled)
            partial.fill(0)
            for columns in self._columns:
                np.add(partial[..., columns], scaled, out=partial[..., columns])
            target.fill(0)
            for rows in self._rows:
                np.add(target[..., rows, :width], partial, out=target[..., rows, :width])
            if self._is_padded:
                self._unpad(padded, bottom_diff[images])
