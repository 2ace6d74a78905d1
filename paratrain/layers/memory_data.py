"""MemoryData: batches from arrays that the program hands over."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.data.datum import datum_to_array
from paratrain.data.transformer import Transformer
from paratrain.errors import DataError
from paratrain.layers.base import Layer, register_layer
from paratrain.proto import Datum

__all__ = ["MemoryDataLayer"]

Array = npt.NDArray[Any]

logger = logging.getLogger(__name__)


@register_layer("MemoryData")
class MemoryDataLayer(Layer):
    """Tops: data (batch_size, channels, height, width), the sizes of ``memory_data_param``, and labels (batch_size,).

    ``reset`` gives it the samples (pycaffe: ``net.set_input_arrays(data, labels)``); forward passes take them batch by
    batch and start again at the end. ``add`` gives it Datums, to which ``transform_param`` is applied.
    """

    bottom_range = (0, 0)
    top_range = (2, 2)
    is_data = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        memory = self.parameter.memory_data_param
        self._shape = (memory.batch_size, memory.channels, memory.height, memory.width)
        if min(self._shape) <= 0:
            raise self.error(f"memory_data_param needs batch_size, channels, height and width; it gives {self._shape}")
        self._data: Array | None = None
        self._labels: Array = np.empty(0)
        self._position = 0
        self._added_count = 0
        self._unused_added = False
        self._has_warned = False
        try:
            transform = self.parameter.transform_param
            self._transformer = Transformer(transform, self.context.phase, self.context.seed, self.name)
        except DataError as error:
            raise self._data_error(str(error)) from None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].reshape(*self._shape)
        top[1].reshape(self._shape[0])

    @property
    def batch_size(self) -> int:
        """Samples in a batch; the number of samples handed over must be a multiple of it."""
        return self._shape[0]

    def reset(self, data: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Take ``data`` (n, C, H, W) and ``labels`` of n values, to be handed out from the first on.

        Arrays of the net's dtype are kept, not copied: do not change them while they are in use. ``transform_param``
        is not applied, which a warning says. Raises DataError, and keeps what was there, if n is not a multiple of the
        batch size or the shapes do not fit.
        """
        if self.parameter.HasField("transform_param") and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "Layer '%s' (%s): transform_param is not applied to arrays; transform them before, or add Datums",
                self.name,
                self.type,
            )
        self._take(data, labels)

    def _take(self, data: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        dtype = np.dtype(self.context.dtype)
        samples, values = np.asarray(data, dtype), np.asarray(labels, dtype)
        wanted = self._shape[1:]
        if samples.ndim != 4 or samples.shape[1:] != wanted:
            raise self._data_error(
                f"expected data of the shape (n, {', '.join(map(str, wanted))}), found {samples.shape}"
            )
        if values.size != len(samples) or values.ndim == 0:
            raise self._data_error(f"expected a label for each of {len(samples)} samples, found shape {values.shape}")
        if len(samples) == 0 or len(samples) % self.batch_size:
            raise self._data_error(f"there are {len(samples)} samples, no multiple of batch_size, {self.batch_size}")
        self._data, self._labels = samples, values.reshape(-1)
        self._position = 0
        self._unused_added = False

    def add(self, datums: Iterable[Datum]) -> None:
        """Transform the Datums as ``transform_param`` says, and take them and their labels as ``reset`` takes arrays.

        Raises DataError if samples added before have not all been handed out, or a Datum does not fit.
        """
        if self._unused_added:
            raise self._data_error("the samples added before have not all been handed out; call forward until they are")
        added = list(datums)
        data = np.empty((len(added), *self._shape[1:]), np.dtype(self.context.dtype))
        positions = np.arange(self._added_count, self._added_count + len(added), dtype=np.uint64)
        self._transformer.transform((self._pixels(i, datum) for i, datum in enumerate(added)), positions, data)
        self._take(data, np.array([datum.label for datum in added], data.dtype))
        self._added_count += len(added)
        self._unused_added = True

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self._data is None:
            raise self._data_error("there are no samples yet; give them by net.set_input_arrays(data, labels) first")
        batch = slice(self._position, self._position + self.batch_size)
        top[0].write_data(None)[...] = self._data[batch]
        top[1].write_data(None)[...] = self._labels[batch]
        self._position = batch.stop % len(self._data)
        if self._position == 0:
            self._unused_added = False

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Nothing: there are no bottoms."""

    def _pixels(self, index: int, datum: Datum) -> Array:
        try:
            pixels = datum_to_array(datum, self._transformer.color)
            channels, height, width = pixels.shape
            shape = self._transformer.output_shape((channels, height, width))
        except DataError as error:
            raise self._data_error(f"Datum {index}: {error}") from None
        if shape != self._shape[1:]:
            raise self._data_error(f"Datum {index}: expected the shape {self._shape[1:]} (C, H, W), found {shape}")
        return pixels

    def _data_error(self, message: str) -> DataError:
        return DataError(f"layer '{self.name}' ({self.parameter.type}): {message}")
