"""Data, ImageData and WindowData on the GPU: batches go over beside the computation, bytes are transformed there."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain.data.loader import BatchLoader
from paratrain.errors import DeviceFullError
from paratrain.layers.base import register_layer
from paratrain.layers.batch_ring import BatchRing
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.cupy.device_ring import DeviceRing, ImageBytes, ImageValues, Sent
from paratrain.layers.data import DataLayer
from paratrain.layers.image_data import ImageDataLayer
from paratrain.layers.prefetching import PrefetchingLayer
from paratrain.layers.window_data import WindowDataLayer

__all__ = ["CupyDataLayer", "CupyImageDataLayer", "CupyWindowDataLayer"]


class _SentToDevice(CupyLayer, PrefetchingLayer):
    """Sends bytes where the records are bytes of one size, values where they are others of one size. Images that come one at a
    time, which may each have a size of their own, and those whose arrays a script holds on to, stay on the host.
    """

    def make_ring(
        self,
        loader: BatchLoader,
        shapes: tuple[tuple[int, ...], ...],
        dtype: np.dtype[Any],
        place_count: int,
        piece_count: int,
    ) -> BatchRing:
        if self.context.keeps_arrays or dtype != np.float32 or self.batch_size == 1:
            return super().make_ring(loader, shapes, dtype, place_count, piece_count)
        transformer = loader.bytes_transformer
        try:
            sent: Sent = ImageValues(self.gpu, loader, shapes)
            if transformer is not None:
                sent = ImageBytes(self.gpu, loader, transformer, shapes)
            return DeviceRing(self.gpu, sent, place_count, piece_count)
        except Exception as error:
            found = self.gpu.device_error(error) if not isinstance(error, DeviceFullError) else error
            if not isinstance(found, DeviceFullError):
                raise
            raise DeviceFullError(
                f"layer '{self.name}' ({self.type}): {found}. {place_count} batches are kept there; a smaller prefetch or "
                "batch_size needs less",
                **vars(found),
            ) from error


@register_layer("Data", backend="cupy")
class CupyDataLayer(_SentToDevice, DataLayer):
    """Batches of a database."""


@register_layer("ImageData", backend="cupy")
class CupyImageDataLayer(_SentToDevice, ImageDataLayer):
    """Batches of image files."""


@register_layer("WindowData", backend="cupy")
class CupyWindowDataLayer(_SentToDevice, WindowDataLayer):
    """Batches of windows, which the host has warped."""
