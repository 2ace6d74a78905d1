from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.data.orders import Shuffled
from paratrain.data.read_ahead import ReadAheadLoader
from paratrain.data.sharding import ShardedReader
from paratrain.errors import DataError


class Filling:
    """A loader that says which batch it was asked for."""

    image_shape = (1, 2, 3)
    record_count = 100

    def __init__(self) -> None:
        self.closed = 0

    def keys(self, batch: int, batch_size: int) -> list[str]:
        return [f"{batch}.{i}" for i in range(batch_size)]

    def reading(self, batch: int) -> list[str]:
        return [str(batch)]

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        return (batch, 2, 3)

    def fill(self, batch: int, data: npt.NDArray[Any], labels: npt.NDArray[Any], part: slice = slice(None)) -> int:
        labels[part] = batch
        return batch

    def close(self) -> None:
        self.closed += 1


class Source:
    """Remembers what was fetched; a record of ``bad`` cannot be."""

    def __init__(self) -> None:
        self.fetched: list[int] = []
        self.bad = -1
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self, record: int) -> bytes:
        self.gate.wait()
        self.fetched.append(record)
        if record == self.bad:
            raise DataError("damaged")
        return b""

    def wait_for(self, count: int) -> list[int]:
        end = time.monotonic() + 20
        while len(self.fetched) < count and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02)  # more would be too many
        return self.fetched


def make(source: Source, rank: int = 0, size: int = 1) -> tuple[ReadAheadLoader, ShardedReader]:
    reader = ShardedReader(100, rank, size, order=Shuffled(100, 1, "d", window=24))
    return ReadAheadLoader(Filling(), reader, source.fetch, 24, 4), reader


def fill(loader: ReadAheadLoader, batch: int) -> None:
    labels = np.zeros(4)
    assert loader.fill(batch, np.zeros((4, 1, 2, 3)), labels, slice(1, 3)) == batch
    assert labels.tolist() == [0, batch, batch, 0]


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (1, 2)])
def test_this_window_and_the_next_are_read_in_the_order_of_the_source(rank: int, size: int) -> None:
    source = Source()
    loader, reader = make(source, rank, size)
    count = 24 // size // 4 * 4  # of this rank
    windows = [sorted(reader.samples(window, count).records) for window in range(4)]
    time.sleep(0.02)
    assert source.fetched == [], "nothing is read before the first batch is wanted"
    batches = count // 4
    for batch in range(batches):
        fill(loader, batch)
        assert source.wait_for(2 * count) == windows[0] + windows[1]
    fill(loader, batches)
    assert source.wait_for(3 * count) == windows[0] + windows[1] + windows[2]
    fill(loader, batches - 1)  # a slower thread
    fill(loader, 2 * batches)
    assert source.wait_for(4 * count) == [record for window in windows for record in window]
    loader.close()


def test_what_cannot_be_read_is_left_to_its_batch() -> None:
    source = Source()
    loader, reader = make(source)
    source.bad = sorted(reader.samples(0, 24).records)[3]
    fill(loader, 0)
    assert len(source.wait_for(48)) == 48
    loader.close()


def test_reading_goes_on_elsewhere_after_a_jump() -> None:
    source = Source()
    loader, reader = make(source)
    fill(loader, 0)
    source.wait_for(48)
    for window in (30, 10):
        source.fetched.clear()
        fill(loader, 6 * window)
        expected = [sorted(reader.samples(number, 24).records) for number in (window, window + 1)]
        assert source.wait_for(48) == expected[0] + expected[1]
    loader.close()


def test_a_window_that_was_left_behind_is_not_read_to_its_end() -> None:
    source = Source()
    loader, reader = make(source)
    source.gate.clear()
    fill(loader, 0)
    time.sleep(0.01)
    fill(loader, 6 * 30)
    source.gate.set()
    expected = [sorted(reader.samples(number, 24).records) for number in (30, 31)]
    assert source.wait_for(48 + 1)[-48:] == expected[0] + expected[1]
    assert len(source.fetched) <= 49
    loader.close()


def test_closing_ends_the_thread_and_closes_what_it_reads_from() -> None:
    for batch in (None, 0):
        loader, _ = make(Source())
        if batch is not None:
            fill(loader, batch)
        loader.close()
        assert loader._loader.closed == 1  # type: ignore[attr-defined]
        assert "paratrain-read-ahead" not in [thread.name for thread in threading.enumerate()]


def test_everything_else_is_the_loader_s() -> None:
    loader, _ = make(Source())
    assert (loader.image_shape, loader.record_count) == ((1, 2, 3), 100)
    assert (loader.keys(3, 1), loader.reading(3), loader.shape_of(3)) == (["3.0"], ["3"], (3, 2, 3))
    loader.close()
