"""The shapes of what data layers make, as far as the prototxt itself tells them: for checks without the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from paratrain.errors import SnapshotError
from paratrain.proto import BlobProto, LayerParameter, blob_shape, read_binary

__all__ = ["known_shapes"]

Shape = tuple[int, ...]

_BATCHES = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}


def known_shapes(layer: LayerParameter, given: Mapping[str, Shape]) -> list[Shape] | None:
    """Return the shapes of all tops of a data layer: those that are ``given`` by name, labels (N,), images by crop and mean.

    None where one of them cannot be told.
    """
    found = [given.get(top) or _known(layer, index, given) for index, top in enumerate(layer.top)]
    known = [shape for shape in found if shape is not None]
    return known if len(known) == len(found) else None


def _known(layer: LayerParameter, index: int, given: Mapping[str, Shape]) -> Shape | None:
    message = _BATCHES.get(layer.type)
    if message is None:
        return None
    settings = getattr(layer, message)
    if index > 0:
        images = given.get(layer.top[0])
        batch = images[0] if images else settings.batch_size
        return (batch,) if batch else None
    size = _image_size(layer)
    channels = _channels(layer)
    return (
        None if size is None or channels is None or not settings.batch_size else (settings.batch_size, channels, *size)
    )


def _image_size(layer: LayerParameter) -> Shape | None:
    transform, images = layer.transform_param, layer.image_data_param
    if transform.crop_size:
        return (transform.crop_size, transform.crop_size)
    if layer.type == "ImageData" and images.new_height and images.new_width:
        return (images.new_height, images.new_width)
    mean = _mean_shape(transform.mean_file)
    return mean[-2:] if mean else None


def _channels(layer: LayerParameter) -> int | None:
    transform = layer.transform_param
    if layer.type == "ImageData":
        return 3 if layer.image_data_param.is_color else 1
    if layer.type == "WindowData":
        return 3
    if transform.force_color or transform.force_gray:
        return 3 if transform.force_color else 1
    if len(transform.mean_value) > 1:
        return len(transform.mean_value)
    mean = _mean_shape(transform.mean_file)
    return mean[-3] if mean else None


def _mean_shape(path: str) -> Shape | None:
    """The shape (C, H, W) of a mean image, or of one with more axes in front."""
    if not path or not Path(path).is_file():
        return None
    try:
        shape = blob_shape(read_binary(path, BlobProto))
    except SnapshotError:
        return None
    return shape if len(shape) >= 3 else None
