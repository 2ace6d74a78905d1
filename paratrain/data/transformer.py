"""Caffe's ``transform_param``: from the pixels of a record to what the net is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError, SnapshotError
from paratrain.proto import TRAIN, BlobProto, Phase, TransformationParameter, blob_to_array, fork_fields, read_binary
from paratrain.random import hash_key, uniform_at

__all__ = ["Transformer", "check_transform", "read_mean", "transform_problems"]

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]

# What forks put into transform_param and paratrain can do without: settings that change no value.
_HARMLESS_FORK_FIELDS = frozenset(f"transform_param.{name}" for name in ("use_gpu_transform", "display", "num_labels"))
_CHUNK_VALUES = 1 << 16


class Transformer:
    """Computes ``top[c, y, x] = (pixel[c, y, x] - mean) * scale`` for every image of a batch.

    - ``crop_size``: a square window, anywhere in TRAIN, in the middle in TEST. Every image must be as large, at least.
    - ``mirror``: half of the images, by chance, are turned left to right (in TEST too, as in Caffe).
    - mean: ``mean_value`` for all channels or for each, or ``mean_file``, a BlobProto of the size of the uncropped
      images, of which the same window is taken. 0 without either.
    - ``force_color``, ``force_gray``: compressed images are decoded to 3 channels or to 1; ``color`` says which.

    What is random depends on (seed, name of the layer, position in the endless sequence of records) and on nothing
    else: not on the number of ranks, nor on which batch an image falls into. Raises DataError for settings that
    contradict each other.
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

    def transform(self, images: Iterable[Array], positions: npt.NDArray[np.uint64], out: Array) -> None:
        """Write the batch: image i, (C, H, W) uint8 or float32, at position ``positions[i]``, goes to ``out[i]``.

        ``out`` is (N, C, H, W) of the net's dtype, owned by the caller. Images must fit it (``output_shape``).
        """
        height, width = out.shape[2:]
        draws = {what: self._draw(what, positions) for what in ("top", "left") if self._crop_at_random}
        mirrored = self._draw("mirror", positions) < 0.5 if self._mirror else None
        mean = None if self._mean is None else self._mean.astype(out.dtype, copy=False)
        scale = out.dtype.type(self._scale)
        # The mean and the scale are applied to as many images at once as stay in the cache.
        chunk_count = max(1, _CHUNK_VALUES // max(1, out[0].size))
        # A mean image is cut and mirrored as each image is; mean values are the same everywhere.
        mean_by_image = mean is not None and mean.shape[1:] != (1, 1) and (self._crop_size > 0 or self._mirror)
        done = 0
        for i, image in enumerate(images):
            target = out[i] if mirrored is None or not mirrored[i] else out[i, :, :, ::-1]
            if self._crop_size:
                top, left = image.shape[1] - height, image.shape[2] - width
                if draws:
                    top, left = int(draws["top"][i] * (top + 1)), int(draws["left"][i] * (left + 1))
                else:
                    top, left = top // 2, left // 2
                target[...] = image[:, top : top + height, left : left + width]
            else:
                top = left = 0
                target[...] = image
            if mean_by_image and mean is not None:
                target -= mean[:, top : top + height, left : left + width]
            if i + 1 - done >= chunk_count or i + 1 == len(out):
                chunk = out[done : i + 1]
                if mean is not None and not mean_by_image:
                    chunk -= mean
                if scale != 1:
                    chunk *= scale
                done = i + 1

    def _draw(self, what: str, positions: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
        """Uniform numbers in [0, 1), one for each position."""
        drawn: npt.NDArray[np.float64] = uniform_at(self._keys[what], positions).astype(np.float64)
        return drawn


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
