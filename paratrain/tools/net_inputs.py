"""pycaffe's Transformer: from an image as ``load_image`` reads it to what a net takes, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import NetError, ShapeMismatchError
from paratrain.registry import nearest
from paratrain.tools.image_arrays import resize_image

__all__ = ["Transformer"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


class Transformer:
    """Computes ``input = (swap(transpose(resize(image))) * raw_scale - mean) * input_scale`` for each input of a net.

    ``inputs`` has the shape (N, C, H, W) of each input by name: ``{"data": net.blobs["data"].data.shape}``. What is not
    set is left out; what is set lies in the dictionaries of its name, by input. All methods raise NetError for an input
    that is not among them, and ShapeMismatchError for arrays and orders that do not fit it.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs: dict[str, tuple[int, ...]] = {
            name: tuple(int(axis) for axis in shape) for name, shape in inputs.items()
        }
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: npt.ArrayLike) -> Floats:
        """Return what the input ``in_`` takes of the image ``data``, (H, W, K): a new array (K, H, W).

        In this order: resize to the input's size, ``transpose``, ``channel_swap``, times ``raw_scale``, minus ``mean``, times
        ``input_scale``.
        """
        size = self._shape(in_)[2:]
        values = np.array(data, np.float32)
        if len(size) == 2 and values.shape[:2] != size:
            values = resize_image(values, size)
        if in_ in self.transpose:
            values = values.transpose(self._fitting(in_, values, self.transpose[in_], "transpose", values.ndim))
        if in_ in self.channel_swap:
            values = values[self._fitting(in_, values, self.channel_swap[in_], "channel_swap", len(values))]
        if in_ in self.raw_scale:
            values *= np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            mean = self.mean[in_]
            if len(values) != len(mean) != 1:
                raise ShapeMismatchError(
                    f"input '{in_}': the mean has {len(mean)} channels, and the image, transposed, the shape {values.shape}"
                )
            values -= mean
        if in_ in self.input_scale:
            values *= np.float32(self.input_scale[in_])
        return np.ascontiguousarray(values)

    def deprocess(self, in_: str, data: npt.ArrayLike) -> Floats:
        """Return the image (H, W, K) of which ``data``, (K, H, W) or (1, K, H, W), was made, in the size of the input."""
        self._shape(in_)
        values = np.array(data, np.float32).squeeze()
        if values.ndim == 2:
            values = values[np.newaxis]
        if in_ in self.input_scale:
            values /= np.float32(self.input_scale[in_])
        if in_ in self.mean:
            values += self.mean[in_]
        if in_ in self.raw_scale:
            values /= np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            order = self._fitting(in_, values, self.channel_swap[in_], "channel_swap", len(values))
            values = values[np.argsort(order)]
        if in_ in self.transpose:
            order = self._fitting(in_, values, self.transpose[in_], "transpose", values.ndim)
            values = values.transpose(np.argsort(order))
        return np.ascontiguousarray(values)

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the axes: (2, 0, 1) makes (K, H, W) of (H, W, K)."""
        self.transpose[in_] = self._order(in_, order, len(self._shape(in_)) - 1, "axes")

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the channels, which lie first by then: (2, 1, 0) makes B, G, R of R, G, B."""
        self.channel_swap[in_] = self._order(in_, order, self._shape(in_)[1], "channels")

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set what the image is multiplied by before the mean is subtracted: 255 for nets that take values of 0 to 255."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: npt.ArrayLike) -> None:
        """Set what is subtracted: a value for each channel, (C,), or an image (C, H, W), or (H, W) for all channels.

        An image of another size is resized to the input's, as every image is.
        """
        shape = self._shape(in_)[1:]
        values = np.asarray(mean, np.float32)
        if values.ndim == 1:
            values = values[:, np.newaxis, np.newaxis]
        elif values.ndim == 2:
            values = values[np.newaxis]
        is_image = (
            np.ndim(mean) > 1 and values.ndim == len(shape) == 3 and len(values) in (1, shape[0]) and values.size > 0
        )
        if not is_image and values.shape != (shape[0], 1, 1):
            raise ShapeMismatchError(
                f"input '{in_}' has the shape {shape} (C, H, W), and the mean {np.shape(mean)}: give one value for each of "
                f"the {shape[0]} channels, mean.mean((1, 2)), or an image of as many channels"
            )
        if is_image and values.shape[1:] not in ((1, 1), shape[1:]):
            values = resize_image(values.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1)
        self.mean[in_] = values

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set what everything is multiplied by in the end, after the mean has been subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            close = nearest(in_, list(self.inputs))
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise NetError(f"'{in_}' is not one of the inputs: {', '.join(self.inputs) or 'there are none'}{hint}")
        return self.inputs[in_]

    def _order(self, in_: str, order: Sequence[int], count: int, what: str) -> tuple[int, ...]:
        given = tuple(int(place) for place in order)
        if sorted(given) != list(range(count)):
            raise ShapeMismatchError(
                f"input '{in_}' has the shape {self.inputs[in_]}: {given} is no order of its {count} {what}"
            )
        return given

    def _fitting(self, in_: str, values: Array, order: Sequence[int], what: str, count: int) -> list[int]:
        if len(order) != count:
            raise ShapeMismatchError(
                f"input '{in_}': {what} {tuple(order)} does not fit an image of the shape {values.shape}; the input "
                f"takes {self.inputs[in_][1:]} (C, H, W)"
            )
        return list(order)
