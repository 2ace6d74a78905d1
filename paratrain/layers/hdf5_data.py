"""HDF5Data: batches of rows from HDF5 files."""

from __future__ import annotations

import time
from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.data.hdf5_records import Hdf5Records
from paratrain.data.orders import Sequential, Shuffled
from paratrain.data.sharding import ShardedReader
from paratrain.errors import DataError
from paratrain.layers.base import Layer, register_layer
from paratrain.proto import TEST, LayerParameter

__all__ = ["HDF5DataLayer"]


@register_layer("HDF5Data")
class HDF5DataLayer(Layer):
    """Each top is a batch (batch_size, ...) of the dataset of its name, as floats, in the files that ``source`` lists.

    In TRAIN the ranks take turns over the rows (see :class:`paratrain.data.ShardedReader`); in TEST batches are made of all
    of them, as in Caffe. With ``shuffle`` each epoch has another order of the files and of the rows within each, the same on
    every number of ranks. A ``transform_param`` is refused, as in Caffe.

    Raises DataError that names the layer, for files that are missing or do not fit.
    """

    bottom_range = (0, 0)
    top_range = (1, None)
    is_data = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter, context = self.parameter.hdf5_data_param, self.context
        if self.parameter.HasField("transform_param"):
            raise self.error("does not transform data; remove transform_param")
        if parameter.batch_size == 0:
            raise self.error("hdf5_data_param has no batch_size")
        self._batch_size = parameter.batch_size
        self._batch = 0
        names = list(self.parameter.top)[: len(top)]
        rank, size = (0, 1) if context.phase == TEST else (context.rank, context.size)
        try:
            self._records = Hdf5Records(parameter.source, names, context.dtype, context.data.time_limit_s)
        except DataError as error:
            raise self._named(error) from error
        count, pieces = self._records.count, self._records.file_counts
        order = Shuffled(count, context.seed, self.name, pieces=pieces) if parameter.shuffle else Sequential()
        self._reader = ShardedReader(count, rank, size, order=order)
        self._last: list[int] = []
        self._current_file = -1
        self.wait_s = 0.0
        """Seconds spent so far reading rows."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob, shape in zip(top, self._records.row_shapes, strict=True):
            blob.reshape(self._batch_size, *shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        start = time.perf_counter()
        first, step = self.context.deal
        number = first + self._batch * step
        records = self._reader.samples(number, self._batch_size).records
        try:
            self._records.read(records, [blob.write_data(None) for blob in top])
        except DataError as error:
            raise self._named(error) from error
        self._last = records
        file = self._records.file_of(records[-1])
        if file != self._current_file:
            self._current_file = file
            self._read_file_after(file, int(self._reader.positions(number, self._batch_size)[-1]))
        self._batch += 1
        self.wait_s += time.perf_counter() - start

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Nothing: data has no gradient."""

    @classmethod
    def deals_batches(cls, parameter: LayerParameter) -> bool:  # noqa: ARG003
        """Yes: any batch can be read at any time."""
        return True

    @property
    def record_count(self) -> int:
        """Rows in all files."""
        return self._records.count

    def last_keys(self) -> list[str]:
        """The files and rows of the last batch."""
        return [self._records.key(record) for record in self._last]

    @property
    def next_batch(self) -> int:
        """How many batches have been handed out: the number of the next one."""
        return self._batch

    def seek(self, batch: int) -> None:
        """Go on with batch number ``batch`` of this rank, as if those before had been handed out: for resumed runs."""
        self._batch = batch

    def close(self) -> None:
        """End the thread that reads ahead, and free the files' memory."""
        if hasattr(self, "_records"):
            self._records.close()

    def _read_file_after(self, file: int, position: int) -> None:
        """Have the file read that comes after this one, which is read from at ``position``."""
        for _ in range(2):  # a file may end an epoch and start the next
            epoch, place = divmod(position, self._records.count)
            order = self._reader.order
            end = order.window_end(epoch, place) if isinstance(order, Shuffled) else self._records.stop_of(file)
            position = epoch * self._records.count + end
            following = self._records.file_of(self._reader.record_at(position))
            if following != file:
                self._records.read_ahead(following)
                return

    def _named(self, error: DataError) -> DataError:
        return DataError(f"layer '{self.name}' ({self.parameter.type}): {error}")
