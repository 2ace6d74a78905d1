"""Nets that are given one blob of images: classifying whole images, and windows of images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError, NetError, ShapeMismatchError
from paratrain.net import Net
from paratrain.tools.image_arrays import center_crop, load_image, oversample, resize_image
from paratrain.tools.net_inputs import Transformer

__all__ = ["Detection", "context_mean", "create_transformer", "crop_window", "detect", "image_input", "predict"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Window = Sequence[float] | Array
"""(ymin, xmin, ymax, xmax) in pixels; the last row and column do not belong to it."""


class Detection(TypedDict):
    """What a net says of one window of an image."""

    window: Window
    prediction: Floats
    filename: str


def image_input(net: Net) -> str:
    """Return the name of the net's first input. Raises NetError for a net that is not given images from outside."""
    if not net.inputs:
        raise NetError(
            "the net has no Input layer to give images to; take its deploy prototxt, in which an Input "
            "layer stands in the place of the data layers"
        )
    shape = net.blobs[net.inputs[0]].shape
    if len(shape) != 4:
        raise NetError(f"the input '{net.inputs[0]}' has the shape {shape}; images need one of (N, C, H, W)")
    return net.inputs[0]


def create_transformer(
    net: Net,
    *,
    mean: npt.ArrayLike | None = None,
    input_scale: float | None = None,
    raw_scale: float | None = None,
    channel_swap: Sequence[int] | None = None,
) -> Transformer:
    """Return the Transformer of the net's first input, for images (H, W, K). Raises NetError, ShapeMismatchError."""
    name = image_input(net)
    transformer = Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer


def predict(
    net: Net,
    transformer: Transformer,
    inputs: Sequence[npt.ArrayLike],
    image_dims: Sequence[int] | Array,
    oversampled: bool = True,
) -> Floats:
    """Return what the net's first output says of each image (H, W, K): one row for each.

    Images are resized to ``image_dims`` (height, width). With ``oversampled`` it is the mean over ten crops of the size of
    the net's input (see :func:`~paratrain.tools.image_arrays.oversample`), else that of the middle one.

    Raises ShapeMismatchError for images of other channels than the net takes, and crops that are larger than images.
    """
    name = image_input(net)
    size = transformer.inputs[name][2:]
    resized = [resize_image(image, image_dims) for image in inputs]
    if not resized:
        raise DataError("there is no image to classify")
    crops = oversample(resized, size) if oversampled else center_crop(resized, size)
    predictions = _forward(net, name, [transformer.preprocess(name, crop) for crop in crops])
    if oversampled:
        predictions = predictions.reshape(len(resized), 10, -1).mean(axis=1)
    return predictions


def detect(
    net: Net,
    transformer: Transformer,
    images_windows: Iterable[tuple[str | os.PathLike[str], Iterable[Window]]],
    context_pad: int | None = None,
) -> list[Detection]:
    """Return what the net's first output says of each window of each image file, warped to the size of its input.

    ``context_pad``: see :func:`crop_window`. Raises DataError for images that cannot be read, and for windows with no pixel
    of the image in them.
    """
    name = image_input(net)
    mean = context_mean(transformer, name)
    windows_found: list[tuple[Window, str]] = []
    predictions: list[Floats] = []
    crops: list[Floats] = []
    for filename, windows in images_windows:
        image = load_image(filename, color=transformer.inputs[name][1] != 1)
        for window in windows:
            try:
                crop = crop_window(image, window, transformer.inputs[name][2:], context_pad or 0, mean)
            except DataError as error:
                raise DataError(f"{os.fspath(filename)}: {error}") from None
            windows_found.append((window, os.fspath(filename)))
            crops.append(transformer.preprocess(name, crop))
            if len(crops) == net.blobs[name].shape[0]:
                predictions.extend(_forward(net, name, crops))
                crops.clear()
    if crops:
        predictions.extend(_forward(net, name, crops))
    return [
        {"window": window, "prediction": prediction, "filename": filename}
        for (window, filename), prediction in zip(windows_found, predictions, strict=True)
    ]


def context_mean(transformer: Transformer, name: str) -> Floats:
    """The mean of the input as an image (H, W, K) before it is transposed and scaled: what lies beyond an image's rim."""
    _, channels, height, width = transformer.inputs[name]
    mean = np.zeros((channels, height, width), np.float32) + transformer.mean.get(name, np.zeros((1, 1, 1), np.float32))
    if name in transformer.channel_swap:
        mean = mean[np.argsort(transformer.channel_swap[name])]
    unscaled: Floats = mean.transpose(1, 2, 0) / np.float32(transformer.raw_scale.get(name, 1))
    return unscaled


def crop_window(
    image: Array, window: Window, size: Sequence[int] | Array, context_pad: int = 0, mean: Array | None = None
) -> Floats:
    """Return the pixels of a window (ymin, xmin, ymax, xmax) of an image (H, W, K).

    With ``context_pad`` the window is first enlarged about its middle by W / (W - 2 ``context_pad``), W being the width of
    the crop's ``size`` (height, width), then warped so that it fills the crop; where the image leaves off it shows ``mean``.

    Raises DataError for a window with no pixel of the image in it.
    """
    top, left, bottom, right = (float(side) for side in window)
    if not (
        top < bottom and left < right and top < image.shape[0] and left < image.shape[1] and min(bottom, right) > 0
    ):
        raise DataError(
            f"the window {_numbers(window)} (ymin, xmin, ymax, xmax) has no pixel of the image, which is "
            f"{image.shape[0]} x {image.shape[1]} (height x width)"
        )
    if not context_pad:
        found = image[max(0, int(top)) : int(bottom), max(0, int(left)) : int(right)]
        return found.astype(np.float32)
    height, width = (int(side) for side in size)
    if height != width or 2 * context_pad >= width:
        raise ShapeMismatchError(
            f"context_pad {context_pad} needs a square input larger than twice that, not {height} x {width}; give less, or 0 for "
            "windows without their surroundings"
        )
    # The corners are inclusive in all that follows, but for the slices, as in Caffe.
    enlarge = width / (width - 2.0 * context_pad)
    half = np.array([bottom - top + 1, right - left + 1]) / 2
    middle = np.array([top, left]) + half
    first, last = np.rint(middle - enlarge * half), np.rint(middle + enlarge * half)
    scale = width / (last - first + 1)
    missing = np.rint(np.maximum(0, -first) * scale).astype(int)
    limit = image.shape[:2]
    first, last = np.clip(first, 0, limit).astype(int), np.clip(last, 0, limit).astype(int)
    inside = np.minimum(np.rint((last - first + 1) * scale).astype(int), width - missing)
    crop = np.zeros((height, width, image.shape[2]), np.float32)
    crop += 0 if mean is None else mean
    context = image[first[0] : last[0], first[1] : last[1]]
    if context.size and min(inside) > 0:
        rows, columns = (slice(start, start + count) for start, count in zip(missing, inside, strict=True))
        crop[rows, columns] = resize_image(context, inside)
    return crop


def _forward(net: Net, name: str, arrays: Sequence[Floats]) -> Floats:
    """The net's first output for each array (C, H, W), run in batches of the input's size: (count, ...)."""
    wanted = net.blobs[name].shape
    for array in arrays:
        if array.shape != wanted[1:]:
            raise ShapeMismatchError(
                f"the net's input '{name}' takes {wanted[1:]} (C, H, W); an image, prepared for it, has {array.shape}"
            )
    if not net.outputs:
        raise NetError("the net has no output: some layer reads every blob")
    output = net.outputs[0]
    if not net.blobs[output].shape or net.blobs[output].shape[0] != wanted[0]:
        raise NetError(
            f"the net's first output, '{output}', has the shape {net.blobs[output].shape}, not one row for each of "
            f"{wanted[0]} images"
        )
    given: dict[str, Any] = {name: np.stack(arrays)}
    return np.asarray(net.forward_all(**given)[output], np.float32)


def _numbers(window: Window) -> str:
    return " ".join(f"{side:g}" for side in window)
