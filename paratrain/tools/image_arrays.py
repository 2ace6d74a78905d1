"""Images as scripts for pycaffe have them: arrays (H, W, K) of float32, colours in the order R, G, B, values 0 to 1."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data import images
from paratrain.errors import DataError, MissingDependencyError, ShapeMismatchError

__all__ = ["center_crop", "load_image", "oversample", "resize_image"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

# The weights of R, G and B in brightness (ITU-R BT.709, as scikit-image rounds them).
_BRIGHTNESS = (0.2125, 0.7154, 0.0721)
_HIGHEST_ORDER = 5


def load_image(filename: str | os.PathLike[str], color: bool = True) -> Floats:
    """Read an image file: (H, W, 3), or (H, W, 1) where ``color`` is False: its brightness.

    Grey images get three equal channels, transparency is dropped, and a photograph is not turned by what its camera
    noted. Raises DataError, which names the file, if it cannot be read or decoded.
    """
    path = os.fspath(filename)
    try:
        stored = images.decode_as_stored(images.read_image_file(path))
    except DataError as error:
        raise error if path in str(error) else DataError(f"{path}: {error}") from None
    values = stored.astype(np.float64)
    if np.issubdtype(stored.dtype, np.integer):
        values /= np.iinfo(stored.dtype).max
    if values.shape[2] < 3:
        grey = values[:, :, :1]
        return (np.repeat(grey, 3, axis=2) if color else grey).astype(np.float32)
    rgb = values[:, :, 2::-1]
    return (rgb if color else rgb @ np.array(_BRIGHTNESS)[:, np.newaxis]).astype(np.float32)


def resize_image(im: npt.ArrayLike, new_dims: Sequence[int] | Array, interp_order: int = 1) -> Floats:
    """Return the image (H, W, K) in the size ``new_dims`` (height, width), with the values of pycaffe's function.

    ``interp_order`` is 0 (the nearest pixel), 1 (linear in both directions) or up to 5 (splines, which need SciPy).

    An image of 1 or 3 channels is spread evenly: pixel i of n lies at (i + 0.5) / n of the side. Beyond its rim it is as
    dark as its darkest value, which shows in the outermost pixels where it is enlarged. Nothing is smoothed before it is
    made smaller. Of other numbers of channels, the outermost pixels of both sizes lie upon each other.

    Raises ShapeMismatchError for an array or a size that is none of an image, ValueError for another order.
    """
    image = np.asarray(im)
    size = tuple(int(side) for side in new_dims)
    if image.ndim != 3 or 0 in image.shape:
        raise ShapeMismatchError(
            f"resize_image: expected an image (H, W, K), found an array of the shape {image.shape}"
        )
    if len(size) != 2 or min(size) < 1:
        raise ShapeMismatchError(f"resize_image: expected a size (height, width) above 0, found {tuple(new_dims)}")
    if not 0 <= interp_order <= _HIGHEST_ORDER:
        raise ValueError(f"resize_image: interp_order is 0 to {_HIGHEST_ORDER}, not {interp_order}")
    values = image.astype(np.float64)
    if image.shape[2] not in (1, 3):
        return np.asarray(_resample(values, size, interp_order, corners=True), np.float32)
    low, high = values.min(), values.max()
    if not high > low:
        return np.full((*size, image.shape[2]), low, np.float32)
    # "As dark as the darkest" is 0 from here on.
    values = (values - low) / (high - low)
    resized = np.clip(_resample(values, size, interp_order, corners=False), 0, 1)
    return np.asarray(resized * (high - low) + low, np.float32)


def _resample(values: Array, size: tuple[int, ...], order: int, *, corners: bool) -> Array:
    if order > 1:
        return _splines(values, size, order, corners=corners)
    for axis, count in enumerate(size):
        old = values.shape[axis]
        pixels = np.arange(count)
        if corners:
            places = np.minimum(pixels * ((old - 1) / (count - 1) if count > 1 else 0.0), old - 1)
        else:
            places = (pixels + 0.5) * (old / count) - 0.5
        first = np.floor(places + (0.5 if order == 0 else 0)).astype(np.intp)
        share = places - first if order else np.zeros(count)
        shape = (-1, *[1] * (values.ndim - axis - 1))
        parts = [
            np.take(values, np.clip(index, 0, old - 1), axis)
            * np.where((index >= 0) & (index < old), weight, 0).reshape(shape)
            for index, weight in ((first, 1 - share), (first + 1, share))
        ]
        values = parts[0] + parts[1]
    return values


def _splines(values: Array, size: tuple[int, ...], order: int, *, corners: bool) -> Array:
    try:
        from scipy.ndimage import zoom
    except ImportError:
        raise MissingDependencyError("SciPy", f"resizing with interp_order {order}", "splines") from None
    factors = [new / old for new, old in zip(size, values.shape, strict=False)]
    mode = "constant" if corners else "grid-constant"
    resized: Array = zoom(values, [*factors, 1], order=order, mode=mode, grid_mode=not corners)
    return resized


def oversample(images: Sequence[Array], crop_dims: Sequence[int] | Array) -> Floats:
    """Return ten crops of ``crop_dims`` (height, width) of each image, (10 N, height, width, K): the corners (top left,
    top right, bottom left, bottom right), the middle, and all these mirrored.

    Raises ShapeMismatchError for crops that are larger than the images, and for images of several sizes.
    """
    shape, (height, width) = _one_shape(images, crop_dims)
    top, left = _middle(shape, (height, width))
    places = [(y, x) for y in (0, shape[0] - height) for x in (0, shape[1] - width)] + [(top, left)]
    crops = np.empty((len(images), 10, height, width, shape[2]), np.float32)
    for image, own in zip(images, crops, strict=True):
        for number, (y, x) in enumerate(places):
            own[number] = image[y : y + height, x : x + width]
    crops[:, 5:] = crops[:, :5, :, ::-1]
    return crops.reshape(-1, height, width, shape[2])


def center_crop(images: Sequence[Array], crop_dims: Sequence[int] | Array) -> Floats:
    """Return the middle of each image, (N, height, width, K). Raises as :func:`oversample`."""
    shape, (height, width) = _one_shape(images, crop_dims)
    top, left = _middle(shape, (height, width))
    return np.stack([image[top : top + height, left : left + width] for image in images]).astype(np.float32)


def _middle(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    return (shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2


def _one_shape(images: Sequence[Array], crop_dims: Sequence[int] | Array) -> tuple[tuple[int, ...], tuple[int, int]]:
    """The shape that all the images have, and the size of the crops."""
    height, width = (int(side) for side in crop_dims)
    if not len(images):
        raise DataError("there is no image to crop")
    shapes = {np.shape(image) for image in images}
    shape = next(iter(shapes))
    if len(shapes) > 1 or len(shape) != 3:
        raise ShapeMismatchError(
            f"expected images of one shape (H, W, K), found {' and '.join(map(str, sorted(shapes)[:3]))}"
        )
    if not (0 < height <= shape[0] and 0 < width <= shape[1]):
        raise ShapeMismatchError(
            f"crops of {height} x {width} (height x width) do not fit into images of {shape[0]} x {shape[1]}"
        )
    return shape, (height, width)
