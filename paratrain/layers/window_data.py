"""WindowData: batches of windows cut out of images, and their classes."""

from __future__ import annotations

import numpy as np

from paratrain.data.loader import BatchLoader
from paratrain.data.sharding import ShardedReader
from paratrain.data.transformer import check_transform, read_mean
from paratrain.data.window_file import read_window_file
from paratrain.data.window_loader import WindowCrop, WindowLoader
from paratrain.layers.base import register_layer
from paratrain.layers.prefetching import PrefetchingLayer

__all__ = ["WindowDataLayer"]


@register_layer("WindowData")
class WindowDataLayer(PrefetchingLayer):
    """Tops: windows (N, 3, S, S), and their classes (N,), 0 for background; S is ``transform_param.crop_size``.

    ``window_data_param`` gives ``batch_size``, N; ``source``, a window file (see
    :func:`paratrain.data.window_file.read_window_file`); ``root_folder``, put in front of the images' paths;
    ``fg_threshold`` and ``bg_threshold``, which sort the windows by their overlap; ``fg_fraction``, foreground's share
    of a batch; ``context_pad`` and ``crop_mode``, warp or square; ``cache_images``; ``scale``. Of ``transform_param``
    mirror, mean_file or mean_value are read, and scale where ``window_data_param`` has none. Windows are drawn by
    chance in TEST, too, as in Caffe; in TRAIN each rank draws its own.

    Raises DataError, naming the layer: for a window file that cannot be used when it is set up, for an image that is
    missing or damaged in the ``forward`` that would have used it.
    """

    @property
    def batch_size(self) -> int:
        return self.parameter.window_data_param.batch_size

    def open_loader(self) -> BatchLoader:
        window, transform = self.parameter.window_data_param, self.parameter.transform_param
        check_transform(transform)
        if not window.source:
            raise self.error("no window file is named: write 'source: \"path\"' in window_data_param")
        if not 0 <= window.fg_fraction <= 1:
            raise self.error(f"fg_fraction is {window.fg_fraction:g}; it is a share, from 0 to 1")
        crop = self._crop()
        mean = None
        if transform.HasField("mean_file"):
            mean = read_mean(transform.mean_file)
        elif transform.mean_value:
            mean = np.array(transform.mean_value, np.float32).reshape(-1, 1, 1)
        windows = read_window_file(window.source, window.fg_threshold, window.bg_threshold)
        loader = WindowLoader(
            window.source,
            windows,
            ShardedReader(1, *self.share),  # for its positions: windows are drawn, not read in turn
            crop,
            fg_fraction=window.fg_fraction,
            mirror=transform.mirror,
            mean=mean,
            scale=window.scale if window.HasField("scale") else transform.scale,
            root_folder=window.root_folder,
            cache=window.cache_images,
            on_bad_record=self.context.data.on_bad_record,
            seed=self.context.seed,
            layer_name=self.name,
        )
        loader.counts(self.batch_size)
        return loader

    def _crop(self) -> WindowCrop:
        window, size = self.parameter.window_data_param, self.parameter.transform_param.crop_size
        if size == 0:
            raise self.error("transform_param has no crop_size, the size that windows are warped to")
        if window.crop_mode not in ("warp", "square"):
            raise self.error(f"crop_mode is '{window.crop_mode}'; it can be warp or square")
        if 2 * window.context_pad >= size:
            raise self.error(f"context_pad {window.context_pad} on each side leaves nothing of crop_size {size}")
        return WindowCrop(size, window.context_pad, window.crop_mode == "square")
