"""Data: batches of images and labels from a database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob, SyncedMemory
from paratrain.data.database import open_database
from paratrain.data.loader import DatumLoader
from paratrain.data.prefetch import Prefetcher, RingMemory
from paratrain.data.sharding import ShardedReader, first_position
from paratrain.data.transformer import Transformer
from paratrain.errors import DataError
from paratrain.layers.base import Layer, register_layer
from paratrain.proto import TEST, TransformationParameter

__all__ = ["DataLayer"]


@register_layer("Data")
class DataLayer(Layer):
    """Tops: images (N, C, H, W), transformed as ``transform_param`` says, and, if there is a second top, labels (N,).

    N is ``data_param.batch_size``, this rank's batch. In TRAIN the ranks take turns over the records (see
    :class:`paratrain.data.ShardedReader`); in TEST every net reads all of them, as in Caffe. ``data_param.prefetch``
    batches are kept in memory, filled by a thread; the tops show them without a copy, so their arrays change with
    every forward pass.

    Raises DataError, naming the layer: for a database that cannot be opened or a first record that cannot be used when
    it is set up, for any other record in the ``forward`` that would have used it.
    """

    bottom_range = (0, 0)
    top_range = (1, 2)
    is_data = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data, context = self.parameter.data_param, self.context
        if data.batch_size == 0:
            raise self.error("data_param has no batch_size")
        if data.shuffle:
            raise self.error("data_param.shuffle (of NVIDIA/caffe and intel/caffe) is not supported yet; remove it")
        transform = TransformationParameter()
        transform.CopyFrom(self.parameter.transform_param)
        if data.force_encoded_color and not transform.force_gray:
            transform.force_color = True
        rank, size = (0, 1) if context.phase == TEST else (context.rank, context.size)
        with self._named():
            transformer = Transformer(transform, context.phase, context.seed, self.name)
            database = open_database(data.source, data.backend)
            first = first_position(data.rand_skip, context.seed, self.name)
            self._loader = DatumLoader(database, ShardedReader(len(database), rank, size, first), transformer)
        self._shapes = ((data.batch_size, *self._loader.image_shape), (data.batch_size,))
        dtype = np.dtype(context.dtype)
        place_count = max(1, data.prefetch)
        arrays = [[np.zeros(shape, dtype) for _ in range(place_count)] for shape in self._shapes]
        self._places = list(zip(*arrays, strict=True))
        self._memories = [RingMemory([_memory(array) for array in column]) for column in arrays]
        self._prefetcher = Prefetcher(self._loader.fill, self._places, self._loader.close)
        for blob, shape, memory in zip(top, self._shapes, self._memories, strict=False):
            blob.reshape(*shape)
            blob.use_memory(data=memory)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob, shape in zip(top, self._shapes, strict=False):
            blob.reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        with self._named():
            place = self._prefetcher.get()
        for blob, memory, array in zip(top, self._memories, self._places[place], strict=False):
            memory.show(place)
            if blob.data_memory is not memory:  # the net has moved the top elsewhere
                blob.write_data(None)[...] = array

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Nothing: images have no gradient."""

    def close(self) -> None:
        """End the thread and close the database; the tops keep the last batch."""
        if hasattr(self, "_prefetcher"):
            self._prefetcher.close()

    @property
    def next_batch(self) -> int:
        """How many batches have been handed out since the start of training: the number of the next one."""
        return self._prefetcher.next_batch

    def seek(self, batch: int) -> None:
        """Go on with batch number ``batch`` of this rank, as if those before had been handed out: for resumed runs."""
        with self._named():
            self._prefetcher.seek(batch)

    @property
    def wait_s(self) -> float:
        """Seconds spent so far waiting for batches that were not ready."""
        return self._prefetcher.wait_s

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise DataError(f"layer '{self.name}' ({self.parameter.type}): {error}") from error


def _memory(array: npt.NDArray[Any]) -> SyncedMemory:
    return SyncedMemory(array.size, array.dtype, host=array.reshape(-1))
