"""Data: batches of images and labels from a database."""

from __future__ import annotations

from paratrain.data.bad_records import BadRecords
from paratrain.data.database import open_database
from paratrain.data.loader import BatchLoader, RecordLoader
from paratrain.data.orders import order_of
from paratrain.data.read_ahead import ReadAheadLoader
from paratrain.data.sharding import ShardedReader, first_position
from paratrain.data.source import DatumSource
from paratrain.data.transformer import Transformer
from paratrain.layers.base import register_layer
from paratrain.layers.prefetching import PrefetchingLayer
from paratrain.proto import TransformationParameter

__all__ = ["DataLayer"]


@register_layer("Data")
class DataLayer(PrefetchingLayer):
    """Tops: images (N, C, H, W), transformed as ``transform_param`` says, and, if there is a second top, labels (N,).

    They come from the Datums of the database ``data_param.source``, an LMDB or LevelDB (``backend``). N is
    ``data_param.batch_size``. In TRAIN the ranks take turns over the records (see
    :class:`paratrain.data.ShardedReader`); in TEST batches are made of all, as in Caffe. ``shuffle`` and
    ``shuffle_window`` give every epoch an order of its own (see :class:`paratrain.data.Shuffled`), the same on all ranks.

    Raises DataError, naming the layer: for a database that cannot be opened or a first record that cannot be used when
    it is set up, for any other record in the ``forward`` that would have used it.
    """

    top_range = (1, 2)

    @property
    def batch_size(self) -> int:
        return self.parameter.data_param.batch_size

    def open_loader(self) -> BatchLoader:
        data, context = self.parameter.data_param, self.context
        transform = TransformationParameter()
        transform.CopyFrom(self.parameter.transform_param)
        if data.force_encoded_color and not transform.force_gray:
            transform.force_color = True
        transformer = Transformer(transform, context.phase, context.seed, self.name)
        database = open_database(data.source, data.backend)
        first = first_position(data.rand_skip, context.seed, self.name)
        count, window = len(database), data.shuffle_window
        order = order_of(count, context.seed, self.name, shuffle=data.shuffle, window=window)
        reader = ShardedReader(count, *self.share, first, order)
        bad_records = BadRecords(count, context.data.on_bad_record)
        source = DatumSource(database, transformer.color)
        limit_s = context.data.time_limit_s
        loader = RecordLoader(source, reader, transformer, self.batch_size, bad_records, limit_s)
        if 0 < window < count:
            return ReadAheadLoader(loader, reader, database.get, window, self.batch_size)
        return loader
