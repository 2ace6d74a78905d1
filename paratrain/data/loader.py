"""Reads whole batches: source of records, share of the rank and transformation joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy.typing as npt

from paratrain.data.sharding import ShardedReader
from paratrain.data.source import RecordSource
from paratrain.data.transformer import Transformer
from paratrain.errors import DataError

__all__ = ["BatchLoader", "RecordLoader"]

Array = npt.NDArray[Any]


class BatchLoader(Protocol):
    """Fills batch number b of a rank, given only b; for one thread at a time."""

    image_shape: tuple[int, int, int]
    """(C, H, W) of every image of every batch; of the first one where batches are of one image, whose sizes may differ."""

    @property
    def record_count(self) -> int:
        """Records in the source."""

    def keys(self, batch: int, batch_size: int) -> list[str]:
        """Return the names of the records of batch number ``batch``, for messages."""

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        """Return (C, H, W) of the images of batch number ``batch``."""

    def fill(self, batch: int, data: Array, labels: Array) -> None:
        """Write batch number ``batch``: images to ``data`` (N, C, H, W), their labels, as floats, to ``labels`` (N,).

        Raises DataError, naming the record, for one that cannot be used.
        """

    def close(self) -> None:
        """Free what the batches are read from."""


class RecordLoader:
    """The batches of a source in the reader's order, transformed.

    The first record decides the shape of all, unless a batch is one image: then each has its own, as in Caffe.
    Owns the source, which ``close`` closes. It is a :class:`BatchLoader`.
    """

    def __init__(self, source: RecordSource, reader: ShardedReader, transformer: Transformer, batch_size: int) -> None:
        self._sizes_may_differ = batch_size == 1
        self._read_ahead: tuple[int, Array, int] | None = None
        self._source = source
        self._reader = reader
        self._transformer = transformer
        pixels, _ = source.read(0)
        self.image_shape = self._output_shape(0, pixels)

    @property
    def record_count(self) -> int:
        return len(self._source)

    def keys(self, batch: int, batch_size: int) -> list[str]:
        records = self._reader.records(self._reader.positions(batch, batch_size))
        return [self._source.key(record) for record in records]

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        if not self._sizes_may_differ:
            return self.image_shape
        [record] = self._reader.records(self._reader.positions(batch, 1))
        self._read_ahead = (record, *self._source.read(record))
        return self._output_shape(record, self._read_ahead[1])

    def fill(self, batch: int, data: Array, labels: Array) -> None:
        positions = self._reader.positions(batch, len(data))
        self._transformer.transform(self._images(self._reader.records(positions), labels), positions, data)

    def close(self) -> None:
        self._source.close()

    def _images(self, records: list[int], labels: Array) -> Iterator[Array]:
        """Yield the pixels of each record, and write its label."""
        last_shape: tuple[int, ...] | None = None
        for i, record in enumerate(records):
            if self._read_ahead is not None and self._read_ahead[0] == record:
                _, pixels, labels[i] = self._read_ahead
            else:
                pixels, labels[i] = self._source.read(record)
            if pixels.shape != last_shape and not self._sizes_may_differ:
                self._check_shape(record, pixels)
                last_shape = pixels.shape
            yield pixels

    def _check_shape(self, record: int, pixels: Array) -> None:
        shape = self._output_shape(record, pixels)
        if shape != self.image_shape:
            raise DataError(
                f"{self._source.describe(record)}: the shape {shape} (C, H, W) is not that of the first "
                f"record, {self.image_shape}; all images must have the same size, be cropped to it (transform_param's "
                "crop_size) or come one at a time (batch_size: 1), and have the same channels (force_color, force_gray)"
            )

    def _output_shape(self, record: int, pixels: Array) -> tuple[int, int, int]:
        channels, height, width = pixels.shape
        try:
            return self._transformer.output_shape((channels, height, width))
        except DataError as error:
            raise DataError(f"{self._source.describe(record)}: {error}") from None
