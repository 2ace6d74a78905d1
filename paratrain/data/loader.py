"""Reads whole batches: source of records, share of the rank and transformation joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paratrain.data.bad_records import BadRecords
from paratrain.data.prefetch import call_within
from paratrain.data.sharding import ShardedReader
from paratrain.data.source import RecordSource
from paratrain.data.transformer import NotBytesError, Transformer
from paratrain.errors import DataError

__all__ = ["BatchLoader", "RecordLoader"]

Array = npt.NDArray[Any]
Counters = npt.NDArray[np.uint64]
WHOLE = slice(None)


class BatchLoader(Protocol):
    """Fills batch number b of a rank, given only b; for any number of threads at once."""

    image_shape: tuple[int, int, int]
    """(C, H, W) of every image of every batch; of the first one where batches are of one image, whose sizes may differ."""

    @property
    def record_count(self) -> int:
        """Records in the source."""

    def keys(self, batch: int, batch_size: int) -> list[str]:
        """Return the names of the records of batch number ``batch``, for messages."""

    def reading(self, batch: int) -> list[str]:
        """Name the records that are being read for batch number ``batch`` at the moment."""

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        """Return (C, H, W) of the images of batch number ``batch``."""

    def fill(self, batch: int, data: Array, labels: Array, part: slice = WHOLE) -> int:
        """Write batch number ``batch``: images to ``data`` (N, C, H, W), their labels, as floats, to ``labels`` (N,); of
        them, those of ``part`` alone, whose step is 1.

        Returns how many of the records are bad, so that others have been written in their places. Raises DataError, naming
        the record, for one that cannot be used where that stops the run.
        """

    @property
    def bytes_transformer(self) -> Transformer | None:
        """What :meth:`fill_bytes` leaves to be done; None where that cannot be called."""

    def fill_bytes(
        self, batch: int, pixels: Array, labels: Array, windows: npt.NDArray[np.int32], part: slice = WHOLE
    ) -> int:
        """As ``fill``, but write the pixels as they are, with the window and the mirroring of each: see Transformer.cut."""

    def close(self) -> None:
        """Free what the batches are read from."""


class RecordLoader:
    """The batches of a source in the reader's order, transformed.

    The first record decides the shape of all, unless a batch is one image: then each has its own, as in Caffe.
    ``bad_records`` says what becomes of records that cannot be read or do not fit; they stop the run if it is not given.
    It reads the first record, for which it waits ``time_limit_s``.
    Owns the source, which ``close`` closes. It is a :class:`BatchLoader`.
    """

    def __init__(
        self,
        source: RecordSource,
        reader: ShardedReader,
        transformer: Transformer,
        batch_size: int,
        bad_records: BadRecords | None = None,
        time_limit_s: float = 120.0,
    ) -> None:
        self._sizes_may_differ = batch_size == 1
        self._read_ahead: dict[int, tuple[int, Array, int]] = {}  # by batch
        self._reading: dict[tuple[int, int], int | tuple[int, int]] = {}  # by batch and first place
        self._source = source
        self._reader = reader
        self._transformer = transformer
        self._bad_records = BadRecords(len(source)) if bad_records is None else bad_records
        self._fitting_shape: tuple[int, ...] = ()  # of images that were found to fit
        self._any_shape = True
        _, pixels, _ = call_within(
            time_limit_s, lambda: self._read_good(0), lambda: f"{source.describe(0)}: reading it"
        )
        self._has_bytes = pixels.dtype == np.uint8
        self.image_shape = self._output_shape(pixels.shape)
        self._any_shape = self._sizes_may_differ

    @property
    def record_count(self) -> int:
        return len(self._source)

    def keys(self, batch: int, batch_size: int) -> list[str]:
        """The names of the records of a batch that has been filled; of those that took the places of bad ones, too."""
        records = self._reader.samples(batch, batch_size).records
        return [self._source.key(next(self._bad_records.candidates(record))) for record in records]

    def reading(self, batch: int) -> list[str]:
        found = sorted((place, what) for (number, place), what in self._reading.copy().items() if number == batch)
        return [self._describe(what) for _, what in found]

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        if not self._sizes_may_differ:
            return self.image_shape
        [record] = self._reader.samples(batch, 1).records
        self._reading[batch, 0] = record
        try:
            self._read_ahead[batch] = read = self._read_good(record)
        finally:
            del self._reading[batch, 0]
        return self._output_shape(read[1].shape)

    def fill(self, batch: int, data: Array, labels: Array, part: slice = WHOLE) -> int:
        return self._fill(
            batch, labels, part, lambda images, whom: self._transformer.transform(images, whom, data[part])
        )

    @property
    def bytes_transformer(self) -> Transformer | None:
        return self._transformer if self._has_bytes and not self._sizes_may_differ else None

    def fill_bytes(
        self, batch: int, pixels: Array, labels: Array, windows: npt.NDArray[np.int32], part: slice = WHOLE
    ) -> int:
        first, _, _ = part.indices(len(labels))

        def write(images: Iterable[Array], counters: Counters) -> None:
            try:
                self._transformer.cut(images, counters, pixels[part], windows[part])
            except NotBytesError as error:
                raise DataError(f"{self._describe(self._reading[batch, first])}: {error}") from None

        return self._fill(batch, labels, part, write)

    def _fill(self, batch: int, labels: Array, part: slice, write: Callable[[Iterable[Array], Counters], None]) -> int:
        """Write the labels of ``part``, and let ``write`` write the images, named by their counters."""
        samples = self._reader.samples(batch, len(labels))
        first, _, _ = part.indices(len(labels))
        records, counters, labels = samples.records[part], samples.counters[part], labels[part]
        ahead = self._read_ahead.pop(batch, None)
        if ahead is not None:
            number, pixels, labels[0] = ahead
            write((pixels,), counters)
            return int(number != records[0])
        try:
            self._reading[batch, first] = (min(records), max(records))
            alike = self._read_alike(records)
            if alike is not None:
                images, labels[...] = alike
                write(images, counters)
                return 0
            replaced: list[int] = []
            write(self._images(records, labels, replaced, (batch, first)), counters)
            return len(replaced)
        finally:
            del self._reading[batch, first]

    def close(self) -> None:
        self._source.close()

    def _images(self, records: list[int], labels: Array, replaced: list[int], who: tuple[int, int]) -> Iterator[Array]:
        """Yield the pixels of each record, and write its label; those that were bad are put into ``replaced``."""
        for i, record in enumerate(records):
            self._reading[who] = record
            used, pixels, labels[i] = self._read_good(record, who)
            if used != record:
                replaced.append(record)
            yield pixels

    def _read_alike(self, records: list[int]) -> tuple[Array, list[int]] | None:
        """All records at once where that can be done, and none of them is bad."""
        if self._sizes_may_differ:
            return None
        try:
            alike = self._source.read_alike(records)
        except DataError:
            return None  # one by one it turns out which record that is about
        return alike if alike is not None and self._fits(alike[0].shape[1:]) else None

    def _read_good(self, record: int, who: tuple[int, int] | None = None) -> tuple[int, Array, int]:
        """The record, or the next good one: its number, pixels and label."""
        for number in self._bad_records.candidates(record):
            if who is not None and number != record:
                self._reading[who] = number
            try:
                pixels, label = self._source.read(number)
                if pixels.shape != self._fitting_shape:
                    self._check(number, pixels)
            except DataError as error:
                self._bad_records.add(number, error)
            else:
                return number, pixels, label
        raise AssertionError("candidates end with an error")

    def _check(self, record: int, pixels: Array) -> None:
        """Raise DataError, which names the record, where it does not fit with the others."""
        try:
            shape = self._output_shape(pixels.shape)
            if not self._any_shape and shape != self.image_shape:
                raise DataError(
                    f"the shape {shape} (C, H, W) is not that of the first record, {self.image_shape}; all images must have "
                    "the same size, be cropped to it (transform_param's crop_size) or come one at a time (batch_size: 1), "
                    "and have the same channels (force_color, force_gray)"
                )
        except DataError as error:
            raise DataError(f"{self._source.describe(record)}: {error}") from None
        if not self._any_shape:
            self._fitting_shape = pixels.shape

    def _fits(self, shape: tuple[int, ...]) -> bool:
        if shape != self._fitting_shape:
            try:
                if self._output_shape(shape) != self.image_shape:
                    return False
            except DataError:
                return False
            self._fitting_shape = shape
        return True

    def _output_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        channels, height, width = shape
        return self._transformer.output_shape((channels, height, width))

    def _describe(self, what: int | tuple[int, int]) -> str:
        if isinstance(what, int) or what[0] == what[1]:
            return self._source.describe(what if isinstance(what, int) else what[0])
        return f"{self._source.describe(what[0])} or another one up to record {what[1]}"
