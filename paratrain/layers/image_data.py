"""ImageData: batches of images and labels from a list of image files."""

from __future__ import annotations

from paratrain.data.bad_records import BadRecords
from paratrain.data.loader import BatchLoader, RecordLoader
from paratrain.data.orders import order_of
from paratrain.data.read_ahead import ReadAheadLoader
from paratrain.data.sharding import ShardedReader, first_position
from paratrain.data.source import ImageListSource
from paratrain.data.transformer import Transformer
from paratrain.layers.base import register_layer
from paratrain.layers.prefetching import PrefetchingLayer

__all__ = ["ImageDataLayer"]


@register_layer("ImageData")
class ImageDataLayer(PrefetchingLayer):
    """Tops: images (N, C, H, W), resized and then transformed as ``transform_param`` says, and labels (N,).

    ``image_data_param`` gives ``batch_size``, N; ``source``, a text file with the path of an image and its label on
    each line; ``root_folder``, which is put in front of every path; ``new_height`` and ``new_width``, both or neither;
    ``is_color``, 3 channels or 1; ``shuffle`` and ``shuffle_window``: every epoch in an order of its own, the same on
    all ranks (see :class:`paratrain.data.Shuffled`). In TRAIN the ranks take turns over the lines, or over the epoch's
    order; in TEST batches are made of all.

    Raises DataError, naming the layer: for a list that is missing or has a bad line, or a first image that cannot be
    used, when it is set up; for any other image in the ``forward`` that would have used it.
    """

    @property
    def batch_size(self) -> int:
        return self.parameter.image_data_param.batch_size

    def open_loader(self) -> BatchLoader:
        images, context = self.parameter.image_data_param, self.context
        size = (images.new_height, images.new_width)
        if not images.source:
            raise self.error("no list of images is named: write 'source: \"path\"' in image_data_param")
        if (size[0] == 0) != (size[1] == 0):
            raise self.error(f"new_height is {size[0]} and new_width {size[1]}; give both, or neither")
        transformer = Transformer(self.parameter.transform_param, context.phase, context.seed, self.name)
        source = ImageListSource(
            images.source,
            root_folder=images.root_folder,
            color=images.is_color,
            size=size if size != (0, 0) else None,
        )
        first = first_position(images.rand_skip, context.seed, self.name)
        count, window = len(source), images.shuffle_window
        order = order_of(count, context.seed, self.name, shuffle=images.shuffle, window=window)
        reader = ShardedReader(count, *self.share, first, order)
        bad_records = BadRecords(count, context.data.on_bad_record)
        limit_s = context.data.time_limit_s
        loader = RecordLoader(source, reader, transformer, self.batch_size, bad_records, limit_s)
        if 0 < window < count:
            return ReadAheadLoader(loader, reader, source.fetch, window, self.batch_size)
        return loader
