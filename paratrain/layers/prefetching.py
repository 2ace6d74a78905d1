"""What layers have in common that read batches ahead of time, in threads."""

from __future__ import annotations

import abc
import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.blob.limits import check_bytes
from paratrain.data.dealt import DealtLoader
from paratrain.data.loader import BatchLoader
from paratrain.data.prefetch import Prefetcher
from paratrain.errors import DataError
from paratrain.layers.base import Layer
from paratrain.layers.batch_ring import BatchRing, HostRing
from paratrain.proto import TEST, LayerParameter

__all__ = ["PrefetchingLayer"]

_DIVIDED_BYTES = 1 << 20


class PrefetchingLayer(Layer):
    """Tops: images (N, C, H, W) and labels (N,), N being this rank's batch. Subclasses say what they are read from.

    ``data_param.prefetch`` batches are kept in memory, filled by the threads that ``context.data`` asks for; the tops show
    them without a copy, so their arrays change with every forward pass, unless ``context.keeps_arrays`` asks for a copy.
    DataErrors name the layer: what is wrong with the source as a whole is raised when the layer is set up, what is wrong
    with a record in the ``forward`` that would have used it.
    """

    bottom_range = (0, 0)
    top_range = (2, 2)
    is_data = True
    _bad_record_count = 0

    # -- for subclasses ------------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def batch_size(self) -> int:
        """N, as the prototxt gives it."""

    @abc.abstractmethod
    def open_loader(self) -> BatchLoader:
        """Return what fills this rank's batches; called once. Raises DataError, which need not name the layer."""

    @property
    def share(self) -> tuple[int, int]:
        """(rank, size): in TRAIN the ranks take turns over the records; in TEST batches are made of all, as in Caffe, and
        it is the batches that ranks may share (``context.deal``).
        """
        return (0, 1) if self.context.phase == TEST else (self.context.rank, self.context.size)

    # -- for nets ------------------------------------------------------------------------------------------------

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        context = self.context
        if self.batch_size == 0:
            raise self.error("there is no batch_size")
        with self._named():
            loader = self.open_loader()
        if context.deal != (0, 1):
            loader = DealtLoader(loader, *context.deal)
        self._shapes: tuple[tuple[int, ...], ...] = ((self.batch_size, *loader.image_shape), (self.batch_size,))
        self.reshape(bottom, top)
        if context.shapes_only:
            loader.close()
            return
        dtype = np.dtype(context.dtype)
        place_count = max(1, self.parameter.data_param.prefetch)
        image_bytes = math.prod(self._shapes[0]) * dtype.itemsize
        check_bytes(place_count * image_bytes, f"{place_count} batches of the shape {self._shapes[0]}")
        self._loader = loader
        # Threads share a batch, so that few places keep many of them busy and the first batch is there soon; where images
        # are small, dividing them takes longer than reading them.
        pieces = 1 if image_bytes < _DIVIDED_BYTES else min(context.data.worker_count, self.batch_size)
        try:
            self._ring = self.make_ring(loader, self._shapes, dtype, place_count, pieces)
        except BaseException:
            loader.close()
            raise
        self._prefetcher = Prefetcher(
            self._ring.fill,
            [(place,) for place in range(place_count)],
            functools.partial(_close, self._ring, loader),
            worker_count=min(context.data.worker_count, place_count * self._ring.piece_count),
            piece_count=self._ring.piece_count,
            time_limit_s=context.data.time_limit_s,
            reading=loader.reading,
        )
        if not context.keeps_arrays:
            self._ring.lend(top)

    def make_ring(
        self,
        loader: BatchLoader,
        shapes: tuple[tuple[int, ...], ...],
        dtype: np.dtype[Any],
        place_count: int,
        piece_count: int,
    ) -> BatchRing:
        """Return where batches of these shapes, images and labels, are filled and shown."""
        return HostRing(loader, shapes, dtype, place_count, piece_count)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob, shape in zip(top, self._shapes, strict=False):
            blob.reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        with self._named():
            place = self._prefetcher.get()
        self._bad_record_count += sum(self._ring.bad_counts[place])
        self._shapes = self._ring.show(place, top)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Nothing: images have no gradient."""

    def close(self) -> None:
        """End the threads and close the source; the tops keep the last batch."""
        if hasattr(self, "_prefetcher"):
            self._prefetcher.close()

    @classmethod
    def deals_batches(cls, parameter: LayerParameter) -> bool:  # noqa: ARG003
        """Yes: any batch can be read at any time."""
        return True

    @property
    def record_count(self) -> int:
        """Records in the source."""
        return self._loader.record_count

    @property
    def bad_record_count(self) -> int:
        return self._bad_record_count

    def last_keys(self) -> list[str]:
        """The names of the records in the last batch."""
        if self.next_batch == 0:
            return []
        return self._loader.keys(self.next_batch - 1, self.batch_size)

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


def _close(ring: BatchRing, loader: BatchLoader) -> None:
    ring.close()
    loader.close()
