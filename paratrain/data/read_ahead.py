"""What a shuffled window holds, read from the disk in the order in which it lies there before it is asked for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.loader import WHOLE, BatchLoader
from paratrain.data.sharding import ShardedReader
from paratrain.data.transformer import Transformer
from paratrain.errors import DataError

__all__ = ["ReadAheadLoader"]

Array = npt.NDArray[Any]

_JOIN_S = 10.0


class ReadAheadLoader:
    """The batches of ``loader``, which it owns; a thread reads the records of this window and of the next one.

    The thread calls ``fetch`` for every record of this rank's share of ``window`` records, in the order of the source, and
    drops what it gets: then the system has them in its memory, and they can be asked for in any order without a disk
    having to seek. What cannot be read is left to the batch that needs it. It is a :class:`paratrain.data.BatchLoader`.
    """

    def __init__(
        self, loader: BatchLoader, reader: ShardedReader, fetch: Callable[[int], object], window: int, batch_size: int
    ) -> None:
        assert window > 0 and batch_size > 0
        self.image_shape = loader.image_shape
        self._loader = loader
        self._reader = reader
        self._fetch = fetch
        self._batch_size = batch_size
        self._batches = max(1, window // (reader.size * batch_size))
        """In which a window is read."""
        self._wanted = threading.Condition()
        self._current = -1  # the window that batches are made of
        self._next = 0  # the window that the thread reads next
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def record_count(self) -> int:
        return self._loader.record_count

    def keys(self, batch: int, batch_size: int) -> list[str]:
        return self._loader.keys(batch, batch_size)

    def reading(self, batch: int) -> list[str]:
        return self._loader.reading(batch)

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        return self._loader.shape_of(batch)

    def fill(self, batch: int, data: Array, labels: Array, part: slice = WHOLE) -> int:
        self._turn_to(batch // self._batches)
        return self._loader.fill(batch, data, labels, part)

    @property
    def bytes_transformer(self) -> Transformer | None:
        return self._loader.bytes_transformer

    def fill_bytes(
        self, batch: int, pixels: Array, labels: Array, windows: npt.NDArray[np.int32], part: slice = WHOLE
    ) -> int:
        self._turn_to(batch // self._batches)
        return self._loader.fill_bytes(batch, pixels, labels, windows, part)

    def close(self) -> None:
        """End the thread, and close the loader; a second call does nothing."""
        with self._wanted:
            self._closed = True
            self._wanted.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)
            if self._thread.is_alive():
                return  # it hangs in a dead file system, and still reads
        self._loader.close()

    def _turn_to(self, window: int) -> None:
        with self._wanted:
            if window == self._current or self._closed:
                return
            # A slower thread may still fill a batch of the window before; any other step back is a new start.
            if window == self._current - 1:
                return
            if not window <= self._next <= window + 2:
                self._next = window
            self._current = window
            self._wanted.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="paratrain-read-ahead", daemon=True)
                self._thread.start()

    def _is_wanted(self, window: int) -> bool:
        with self._wanted:
            return not self._closed and self._current <= window <= self._current + 1

    def _run(self) -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._closed or self._next <= self._current + 1)
                if self._closed:
                    return
                window, self._next = self._next, self._next + 1
            # Batch w of so many samples holds those of the batches from w * self._batches on.
            count = self._batches * self._batch_size
            for record in sorted(self._reader.samples(window, count).records):
                if not self._is_wanted(window):
                    break
                with contextlib.suppress(DataError):
                    self._fetch(record)
