"""Reads whole batches of Datum records: database, share of the rank and transformation joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

from paratrain.data.database import Database, describe_record
from paratrain.data.datum import datum_to_array, parse_datum
from paratrain.data.sharding import ShardedReader
from paratrain.data.transformer import Transformer
from paratrain.errors import DataError

__all__ = ["DatumLoader"]

Array = npt.NDArray[Any]


class DatumLoader:
    """Fills batch number b of a rank, given only b. The first record decides the shape of all.

    Owns the database, which ``close`` closes; for one thread at a time.
    """

    def __init__(self, database: Database, reader: ShardedReader, transformer: Transformer) -> None:
        self._database = database
        self._reader = reader
        self._transformer = transformer
        pixels, _ = self._read(0)
        self.image_shape = self._output_shape(0, pixels)
        """(C, H, W) of every image of every batch."""

    def fill(self, batch: int, data: Array, labels: Array) -> None:
        """Write batch number ``batch``: images to ``data`` (N, C, H, W), their labels, as floats, to ``labels`` (N,).

        Raises DataError, naming database, record and key, for a record that is not a Datum, is damaged, or has another
        shape.
        """
        positions = self._reader.positions(batch, len(data))
        self._transformer.transform(self._images(self._reader.records(positions), labels), positions, data)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _images(self, records: list[int], labels: Array) -> Iterator[Array]:
        """Yield the pixels of each record, and write its label."""
        last_shape: tuple[int, ...] | None = None
        for i, record in enumerate(records):
            pixels, labels[i] = self._read(record)
            if pixels.shape != last_shape:
                self._check_shape(record, pixels)
                last_shape = pixels.shape
            yield pixels

    def _read(self, record: int) -> tuple[Array, int]:
        """Return pixels, (C, H, W), and label of a record."""
        value = self._database.get(record)
        try:
            datum = parse_datum(value)
            return datum_to_array(datum, self._transformer.color), datum.label
        except DataError as error:
            raise DataError(f"{describe_record(self._database, record)}: {error}") from None

    def _check_shape(self, record: int, pixels: Array) -> None:
        shape = self._output_shape(record, pixels)
        if shape != self.image_shape:
            raise DataError(
                f"{describe_record(self._database, record)}: the shape {shape} (C, H, W) is not that of the first "
                f"record, {self.image_shape}; all images must have the same size, or be cropped to it (transform_param's "
                "crop_size), and the same channels (force_color, force_gray)"
            )

    def _output_shape(self, record: int, pixels: Array) -> tuple[int, int, int]:
        channels, height, width = pixels.shape
        try:
            return self._transformer.output_shape((channels, height, width))
        except DataError as error:
            raise DataError(f"{describe_record(self._database, record)}: {error}") from None
