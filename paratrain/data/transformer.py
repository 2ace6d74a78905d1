"""Caffe's ``transform_param``: from the pixels of a record to what the net is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.images import copy_pixels
from paratrain.errors import DataError, SnapshotError
from paratrain.proto import TRAIN, BlobProto, Phase, TransformationParameter, blob_to_array, fork_fields, read_binary
from paratrain.random import hash_key, uniform_at

__all__ = ["NotBytesError", "Transformer", "check_transform", "read_mean", "transform_problems"]

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]

# What forks put into transform_param and paratrain can do without: settings that change no value.
_HARMLESS_FORK_FIELDS = frozenset(f"transform_param.{name}" for name in ("use_gpu_transform", "display", "num_labels"))
_CHUNK_VALUES = 1 << 16


class NotBytesError(DataError):
    """An image that is not of bytes, where only bytes can be taken; who knows the record names it."""


class Transformer:
    """Computes ``top[c, y, x] = (pixel[c, y, x] - mean) * scale`` for every image of a batch.

    - ``crop_size``: a square window, anywhere in TRAIN, in the middle in TEST. Every image must be as large, at least.
    - ``mirror``: half of the images, by chance, are turned left to right (in TEST too, as in Caffe).
    - mean: ``mean_value`` for all channels or for each, or ``mean_file``, a BlobProto of the size of the uncropped
      images, of which the same window is taken. 0 without either.
    - ``force_color``, ``force_gray``: compressed images are decoded to 3 channels or to 1; ``color`` says which.

    What is random depends on (seed, name of the layer, the counter that names this use of a record) and on nothing else:
    not on the number of ranks, nor on which batch an image falls into. Any number of threads may transform at once.
    Raises DataError for settings that contradict each other.
    """

    def __init__(self, parameter: TransformationParameter, phase: Phase, seed: int = 0, layer_name: str = "") -> None:
        check_transform(parameter)
        self.color = True if parameter.force_color else False if parameter.force_gray else None
        self._scale = np.float32(parameter.scale)
        self._crop_size = parameter.crop_size
        self._crop_at_random = phase == TRAIN and parameter.crop_size > 0
        self._mirror = parameter.mirror
        self._mean_file = parameter.mean_file
        self._mean_values = np.array(parameter.mean_value, np.float32).reshape(-1, 1, 1)
        self._mean: Array | None = read_mean(parameter.mean_file) if parameter.HasField("mean_file") else None
        if len(self._mean_values):
            self._mean = self._mean_values
        self._has_mean_image = self._mean is not None and parameter.HasField("mean_file")
        self._keys = {what: hash_key(seed, "transform", layer_name, what) for what in ("top", "left", "mirror")}

    def output_shape(self, shape: Shape) -> Shape:
        """The shape (C, H, W) that an image of ``shape`` gets. Raises DataError if crop or mean do not fit it."""
        channels, height, width = shape
        crop = self._crop_size
        if crop > min(height, width):
            raise DataError(f"the image is {height} x {width} (height x width), smaller than crop_size {crop}")
        if self._mean_file and self._mean is not None and self._mean.shape != shape:
            found = self._mean.shape
            raise DataError(f"the mean in {self._mean_file} has the shape {found} (C, H, W), the image {shape}")
        if len(self._mean_values) not in (0, 1, channels):
            times = len(self._mean_values)
            raise DataError(f"mean_value is given {times} times; give it once, or once for each of {channels} channels")
        return (channels, crop, crop) if crop else shape

    def transform(self, images: Iterable[Array], counters: npt.NDArray[np.uint64], out: Array) -> None:
        """Write the batch: image i, (C, H, W) uint8 or float32, goes to ``out[i]``; what is random is keyed by ``counters[i]``.

        ``out`` is (N, C, H, W) of the net's dtype, owned by the caller. Images must fit it (``output_shape``). Images of
        one size may come as one array (N, C, H, W), which is faster where nothing is random.
        """
        if isinstance(images, np.ndarray) and not (self._crop_at_random or self._mirror):
            self._transform_alike(images, out)
        else:
            self._transform_each(images, counters, out)

    def _transform_alike(self, images: Array, out: Array) -> None:
        channels, rows, columns = window = _middle(images.shape[2:], out.shape[2:])
        mean = self._mean[window] if self._mean is not None and self._has_mean_image else self._mean
        # As many at once as stay in the cache.
        step = max(1, _CHUNK_VALUES // max(1, out[0].size))
        for first in range(0, len(out), step):
            chunk = out[first : first + step]
            np.copyto(chunk, images[first : first + step, channels, rows, columns])
            self._subtract_and_scale(chunk, mean)

    def cut(
        self, images: Iterable[Array], counters: npt.NDArray[np.uint64], out: Array, windows: npt.NDArray[np.int32]
    ) -> None:
        """Write only the pixels that :meth:`transform` would use, for whoever does the rest of the arithmetic.

        ``out`` is (N, C, H, W) uint8; ``windows`` (N, 3) gets for each image the top and left of its window and whether it
        is to be mirrored, which ``out`` is not yet. Raises NotBytesError for an image that is not of bytes.
        """
        if isinstance(images, np.ndarray) and images.dtype == np.uint8 and not (self._crop_at_random or self._mirror):
            channels, rows, columns = _middle(images.shape[2:], out.shape[2:])
            np.copyto(out, images[:, channels, rows, columns])
            windows[...] = rows.start, columns.start, 0
            return
        for i, (image, window, is_mirrored) in enumerate(self._windows(images, counters, out)):
            if image.dtype != np.uint8:
                raise NotBytesError("an image of floats among images of bytes; the CPU takes both (--cpu)")
            copy_pixels(image[window], out[i])
            windows[i] = window[1].start, window[2].start, is_mirrored

    @property
    def mean(self) -> Array | None:
        """What is subtracted: an image (C, H, W) as large as the uncropped ones, (C, 1, 1), or (1, 1, 1) for all; None for 0."""
        return self._mean

    @property
    def has_mean_image(self) -> bool:
        """Whether the mean is an image, of which the window is taken that is cut out of the pixels."""
        return self._has_mean_image

    @property
    def scale(self) -> float:
        """What the differences are multiplied by."""
        return float(self._scale)

    def _transform_each(self, images: Iterable[Array], counters: npt.NDArray[np.uint64], out: Array) -> None:
        for i, (image, window, is_mirrored) in enumerate(self._windows(images, counters, out)):
            copy_pixels(image[window], out[i], mirrored=is_mirrored)
            mean = self._mean
            if mean is not None and self._has_mean_image:
                mean = mean[window] if not is_mirrored else mean[window][:, :, ::-1]
            self._subtract_and_scale(out[i], mean)

    def _windows(
        self, images: Iterable[Array], counters: npt.NDArray[np.uint64], out: Array
    ) -> Iterator[tuple[Array, tuple[slice, slice, slice], bool]]:
        """Yield each image, the window of it that is used, and whether that is mirrored."""
        height, width = size = out.shape[2:]
        mirrored = (self._draw("mirror", counters) < 0.5).tolist() if self._mirror else [False] * len(out)
        if self._crop_at_random:
            tops, lefts = self._draw("top", counters).tolist(), self._draw("left", counters).tolist()
        for i, image in enumerate(images):
            if self._crop_at_random:
                top, left = int(tops[i] * (image.shape[1] - height + 1)), int(lefts[i] * (image.shape[2] - width + 1))
                window = np.s_[:, top : top + height, left : left + width]
            else:
                window = _middle(image.shape[1:], size)
            yield image, window, mirrored[i]

    def _subtract_and_scale(self, values: Array, mean: Array | None) -> None:
        if mean is not None:
            values -= mean
        if self._scale != 1:
            values *= values.dtype.type(self._scale)

    def _draw(self, what: str, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
        """Uniform numbers in [0, 1), one for each counter."""
        drawn: npt.NDArray[np.float64] = uniform_at(self._keys[what], counters).astype(np.float64)
        return drawn


def _middle(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """The window of ``size`` in the middle of images of ``shape``, both (height, width)."""
    top, left = (shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2
    return np.s_[:, top : top + size[0], left : left + size[1]]


def check_transform(parameter: TransformationParameter) -> None:
    """Raise DataError for settings that contradict each other, and for fields of forks that would be lost."""
    for problem in transform_problems(parameter):
        raise DataError(problem)


def transform_problems(parameter: TransformationParameter) -> Iterator[str]:
    """Yield a sentence for all that ``check_transform`` refuses."""
    if parameter.HasField("mean_file") and parameter.mean_value:
        yield "transform_param has both mean_file and mean_value; keep one"
    if parameter.force_color and parameter.force_gray:
        yield "transform_param has both force_color and force_gray; keep one"
    for name, fork in fork_fields(parameter, "transform_param"):
        if name not in _HARMLESS_FORK_FIELDS:
            yield f"{name} (of {fork}) is not applied by this version of paratrain"


def read_mean(path: str) -> Array:
    """Return the mean image of a BlobProto file, (C, H, W) float32. Raises DataError if it is missing or no image."""
    try:
        mean = blob_to_array(read_binary(path, BlobProto))
    except SnapshotError as error:
        raise DataError(f"mean_file {error}") from None
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3:
        raise DataError(f"mean_file {path}: expected one image (C, H, W), found the shape {mean.shape}")
    return mean.astype(np.float32)
