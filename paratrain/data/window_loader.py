"""Batches of windows cut out of images, warped to one size: the training data of R-CNN (Girshick et al., 2014)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data import images
from paratrain.data.bad_records import BadRecords
from paratrain.data.loader import WHOLE
from paratrain.data.options import BadRecordMode
from paratrain.data.sharding import Positions, ShardedReader
from paratrain.data.window_file import WindowFile, Windows
from paratrain.errors import DataError
from paratrain.random import hash_key, uniform_at, uniform_double_at

__all__ = ["WindowCrop", "WindowLoader", "warped_region"]

Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]
_CHANNELS = 3


@dataclass(frozen=True)
class WindowCrop:
    """How a window becomes an image of ``size`` x ``size``."""

    size: int
    context_pad: int = 0
    """Pixels of surroundings on each side of the window, counted after warping."""
    square: bool = False
    """Cut out the smallest square around the window instead of squeezing the window."""


@dataclass(frozen=True)
class Region:
    """The pixels of an image that are cut out, and where they go."""

    box: Box
    """x1, y1, x2, y2, inclusive, within the image."""
    height: int
    """What the pixels are resized to, within the crop."""
    width: int
    top: int
    left: int


def warped_region(crop: WindowCrop, box: Box, height: int, width: int, mirror: bool = False) -> Region | None:
    """Return what is cut out of a (height, width) image for the window ``box`` (x1, y1, x2, y2, inclusive).

    Without context and square it is the window, resized to the crop. Else the window, made square if so wished, is
    enlarged about its middle by size / (size - 2 context_pad), and resized so that this region fills the crop; of it,
    only what lies within the image is there, and with ``mirror`` the missing margins change sides. All this is worked
    out and rounded as Caffe does, in float32. None where nothing of the image is left.

    Raises DataError if the window leaves the image and nothing is put around it.
    """
    x1, y1, x2, y2 = box
    if not (crop.context_pad or crop.square):
        if x1 < 0 or y1 < 0 or x2 >= width or y2 >= height:
            raise DataError(f"the window {x1} {y1} {x2} {y2} leaves the image, {height} x {width} (height x width)")
        return Region(box, crop.size, crop.size, 0, 0)
    enlarge = np.float32(crop.size) / np.float32(crop.size - 2 * crop.context_pad)
    half_width, half_height = np.float32(x2 - x1 + 1) / np.float32(2), np.float32(y2 - y1 + 1) / np.float32(2)
    middle_x, middle_y = np.float32(x1) + half_width, np.float32(y1) + half_height
    if crop.square:
        half_width = half_height = max(half_width, half_height)
    columns = _clip(_round(middle_x - half_width * enlarge), _round(middle_x + half_width * enlarge), width, crop.size)
    rows = _clip(_round(middle_y - half_height * enlarge), _round(middle_y + half_height * enlarge), height, crop.size)
    left = columns.after if mirror else columns.before
    warped_width, warped_height = min(columns.count, crop.size - left), min(rows.count, crop.size - rows.before)
    if columns.last < columns.first or rows.last < rows.first or warped_width <= 0 or warped_height <= 0:
        return None
    return Region((columns.first, rows.first, columns.last, rows.last), warped_height, warped_width, rows.before, left)


@dataclass(frozen=True)
class _Clipped:
    """One axis of a region: its pixels within the image, and in the crop their count and those missing on both sides."""

    first: int
    last: int
    count: int
    before: int
    after: int


def _clip(first: int, last: int, size: int, crop_size: int) -> _Clipped:
    missing_before, missing_after = max(0, -first), max(0, last - size + 1)
    scale = np.float32(crop_size) / np.float32(last - first + 1)
    inside = last - missing_after - (first + missing_before) + 1
    count, before, after = (_round(np.float32(pixels) * scale) for pixels in (inside, missing_before, missing_after))
    return _Clipped(first + missing_before, last - missing_after, count, before, after)


def _round(value: Any) -> int:
    """To the nearest integer, halves away from 0, as C's round."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), float(value)))


class WindowLoader:
    """Fills batches with windows drawn by chance, with replacement: background first, then foreground.

    Of N images int(N ``fg_fraction``) are foreground, N being the batches of all ranks together. Each is cut out
    (:func:`warped_region`), warped, with ``mirror`` turned left to right by chance, and becomes ``(pixel - mean) *
    scale``; where the image leaves off, the crop is 0. ``mean`` is a (C, H, W) image, of which a window is taken
    ``(W - size) // 2`` from its top and left, or (C, 1, 1).

    Draws depend on (seed, name of the layer, position of the sample), the positions of the ranks being dealt out by
    ``reader``; any number of threads may fill batches at once. With ``cache`` the compressed images are kept in memory
    once they have been read. ``on_bad_record`` "skip" lets the next window of the kind take the place of one whose image
    cannot be used. It is a :class:`paratrain.data.BatchLoader`.
    """

    def __init__(
        self,
        path: str,
        windows: WindowFile,
        reader: ShardedReader,
        crop: WindowCrop,
        *,
        fg_fraction: float = 0.25,
        mirror: bool = False,
        mean: Array | None = None,
        scale: float = 1.0,
        root_folder: str = "",
        cache: bool = False,
        on_bad_record: BadRecordMode = "stop",
        seed: int = 0,
        layer_name: str = "",
    ) -> None:
        self.image_shape = (_CHANNELS, crop.size, crop.size)
        self._path = path
        self._windows = windows
        self._reader = reader
        self._crop = crop
        self._fg_fraction = np.float32(fg_fraction)
        self._mirror = mirror
        self._mean = None if mean is None else self._fit_mean(mean)
        self._scale = np.float32(scale)
        self._root_folder = root_folder
        self._bad_windows = {
            id(kind): BadRecords(len(kind), on_bad_record) for kind in (windows.background, windows.foreground)
        }
        self._reading: dict[tuple[int, int], str] = {}  # by batch and first place
        self._cached: dict[int, bytes] | None = {} if cache else None
        self._keys = {what: hash_key(seed, "window", layer_name, what) for what in ("window", "mirror")}

    def counts(self, batch_size: int) -> tuple[int, int]:
        """How many are background and foreground of the batch that the ranks make together, ``batch_size`` each.

        Raises DataError where the file has none of a kind needed.
        """
        batch_size *= self._reader.size
        foreground = int(np.float32(batch_size) * self._fg_fraction)
        counts = (batch_size - foreground, foreground)
        kinds = ((self._windows.background, "background", "bg"), (self._windows.foreground, "foreground", "fg"))
        for count, (windows, kind, prefix) in zip(counts, kinds, strict=True):
            if count and not len(windows):
                raise DataError(
                    f"{self._path}: {count} of a batch of {batch_size} should be {kind}, and no window is, going by "
                    f"{prefix}_threshold; change that, or fg_fraction"
                )
        return counts

    @property
    def record_count(self) -> int:
        return len(self._windows.background) + len(self._windows.foreground)

    def keys(self, batch: int, batch_size: int) -> list[str]:
        chosen = [
            (windows, next(self._bad_windows[id(windows)].candidates(index)))
            for windows, index in self._choose(self._reader.positions(batch, batch_size))
        ]
        return [f"{self._windows.paths[windows.image[i]]} (line {windows.line[i]})" for windows, i in chosen]

    def reading(self, batch: int) -> list[str]:
        return [what for (number, _), what in sorted(self._reading.copy().items()) if number == batch]

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        return self.image_shape

    def fill(self, batch: int, data: Array, labels: Array, part: slice = WHOLE) -> int:
        positions = self._reader.positions(batch, len(data))
        mirrored = uniform_at(self._keys["mirror"], positions) < 0.5
        chosen = self._choose(positions)
        mirrored &= self._mirror
        first, stop, _ = part.indices(len(data))
        bad_count = 0
        try:
            for i in range(first, stop):
                windows, index = chosen[i]
                used = self._cut_out_good(windows, index, bool(mirrored[i]), data[i], (batch, first))
                labels[i] = windows.label[used]
                bad_count += used != index
        finally:
            self._reading.pop((batch, first), None)
        return bad_count

    @property
    def bytes_transformer(self) -> None:
        """None: windows are warped, which makes floats of them."""
        return None

    def fill_bytes(
        self, batch: int, pixels: Array, labels: Array, windows: npt.NDArray[np.int32], part: slice = WHOLE
    ) -> int:
        raise NotImplementedError("see bytes_transformer")

    def close(self) -> None:
        """Forget the cached images."""
        self._cached = None

    def _choose(self, positions: Positions) -> list[tuple[Windows, int]]:
        """The windows at the positions of a batch: of which kind, and which of them."""
        background_count, _ = self.counts(len(positions))
        # Sample i of this rank is one of the batch that the ranks make together.
        places = range(self._reader.rank, len(positions) * self._reader.size, self._reader.size)
        kinds = [self._windows.background if place < background_count else self._windows.foreground for place in places]
        drawn = uniform_double_at(self._keys["window"], positions)
        return [(windows, int(share * len(windows))) for windows, share in zip(kinds, drawn.tolist(), strict=True)]

    def _cut_out_good(self, windows: Windows, index: int, mirror: bool, out: Array, who: tuple[int, int]) -> int:
        """Write a window, or the next good one of its kind, to ``out``; return which it is."""
        bad_windows = self._bad_windows[id(windows)]
        for number in bad_windows.candidates(index):
            what = self._reading[who] = (
                f"{self._path}:{windows.line[number]} ('{self._windows.paths[windows.image[number]]}')"
            )
            try:
                self._cut_out(windows, number, mirror, out)
            except DataError as error:
                bad_windows.add(number, DataError(f"{what}: {error}"))
            else:
                return number
        raise AssertionError("candidates end with an error")

    def _cut_out(self, windows: Windows, index: int, mirror: bool, out: Array) -> None:
        """Write one window to ``out`` (C, size, size)."""
        image = images.decode(self._encoded(int(windows.image[index])), color=True)
        x1, y1, x2, y2 = windows.box[index].tolist()
        out[...] = 0
        region = warped_region(self._crop, (x1, y1, x2, y2), image.shape[1], image.shape[2], mirror)
        if region is None:
            return
        x1, y1, x2, y2 = region.box
        warped = images.resize(image[:, y1 : y2 + 1, x1 : x2 + 1], region.height, region.width)
        place = np.s_[:, region.top : region.top + region.height, region.left : region.left + region.width]
        target = out[place]
        target[...] = warped[:, :, ::-1] if mirror else warped
        if self._mean is not None:
            target -= self._mean[place] if self._mean.shape[1:] != (1, 1) else self._mean
        if self._scale != 1:
            target *= self._scale

    def _encoded(self, image: int) -> bytes:
        cached = self._cached  # close() may forget it meanwhile
        encoded = None if cached is None else cached.get(image)
        if encoded is None:
            encoded = images.read_image_file(self._windows.paths[image], self._root_folder)
            if cached is not None:  # two threads may read the same image; they find the same bytes
                cached[image] = encoded
        return encoded

    def _fit_mean(self, mean: Array) -> Array:
        """The part of the mean that is subtracted from a crop."""
        channels, height, width = mean.shape
        if (height, width) == (1, 1) and channels in (1, _CHANNELS):
            return mean
        offset, size = (width - self._crop.size) // 2, self._crop.size
        if channels != _CHANNELS or offset < 0 or offset + size > height:
            raise DataError(
                f"the mean has the shape {mean.shape} (C, H, W); of crops of {size} x {size} with {_CHANNELS} channels "
                "it cannot be subtracted"
            )
        return mean[:, offset : offset + size, offset : offset + size]
