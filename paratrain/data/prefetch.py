"""Batches prepared ahead of time, by one thread, in a ring of arrays that are used over and over."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from paratrain.blob.synced_memory import Device, Head, HostArray, SyncedMemory
from paratrain.errors import DataError

__all__ = ["Prefetcher", "RingMemory"]

Slot = tuple[Any, ...]
Fill = Callable[..., None]

# Longer than reading one batch takes; a thread that hangs in a dead file system is left behind.
_JOIN_S = 10.0


class Prefetcher:
    """Calls ``fill(batch, *slots[i])`` for batch 0, 1, 2 ... ahead of the consumer, who takes them in that order.

    ``slots`` say where batches go, such as the arrays of each place in the ring, owned by the caller. ``get`` lends one
    place out: it is filled again after the next ``get``. The thread starts at the first ``get`` and ends with ``close``,
    when the prefetcher is garbage-collected, and when the interpreter exits; then ``on_close`` is called, once, to free
    what ``fill`` reads from. What ``fill`` raises is raised by the ``get`` that would have returned its batch, and by
    all later ones.
    """

    def __init__(self, fill: Fill, slots: Sequence[Slot], on_close: Callable[[], None] = lambda: None) -> None:
        assert slots
        self._fill = fill
        self._slots = slots
        self._next_batch = 0
        self._lent: int | None = None
        self._workers: list[_Worker] = []  # the one that runs, if any; the finalizer has it too, and must not have self
        self._finalizer = weakref.finalize(self, _finish, self._workers, on_close)
        self.wait_s = 0.0
        """Seconds that ``get`` has waited for batches that were not ready."""

    @property
    def next_batch(self) -> int:
        """The number of the batch that the next ``get`` returns."""
        return self._next_batch

    def get(self) -> int:
        """Return the number of the slot that holds the next batch. The slot of the last ``get`` may be overwritten from
        now on.
        """
        assert self._finalizer.alive, "the prefetcher is closed"
        worker = self._running_worker()
        if self._lent is not None:
            worker.free.put(self._lent)
            self._lent = None
        start = time.perf_counter()
        ready = worker.ready.get()
        self.wait_s += time.perf_counter() - start
        if isinstance(ready, BaseException):
            worker.ready.put(ready)
            raise ready
        self._lent = ready
        self._next_batch += 1
        return ready

    def seek(self, batch: int) -> None:
        """Go on with batch number ``batch``. What was prepared is dropped; the slot that is lent out keeps its values."""
        while self._workers:
            if not self._workers.pop().stop():
                raise DataError(f"reading a batch has not ended within {_JOIN_S:.0f} s; does the file system answer?")
        self._next_batch = batch

    def close(self) -> None:
        """End the thread; a second call does nothing."""
        self._finalizer()

    def _running_worker(self) -> _Worker:
        if not self._workers:
            free = [slot for slot in range(len(self._slots)) if slot != self._lent]
            self._workers.append(_Worker(self._fill, self._slots, free, self._next_batch))
            self._workers[0].start()
        return self._workers[0]


class _Worker(threading.Thread):
    """Fills free slots in turn until it is stopped or ``fill`` raises."""

    def __init__(self, fill: Fill, slots: Sequence[Slot], free: Sequence[int], first_batch: int) -> None:
        super().__init__(name="paratrain-prefetch", daemon=True)
        self.free: SimpleQueue[int] = SimpleQueue()
        self.ready: SimpleQueue[int | BaseException] = SimpleQueue()
        self._fill_slot = fill
        self._slots = slots
        self._batch = first_batch
        self._stopped = threading.Event()
        for slot in free:
            self.free.put(slot)

    def run(self) -> None:
        try:
            while True:
                slot = self.free.get()
                if self._stopped.is_set():
                    return
                self._fill_slot(self._batch, *self._slots[slot])
                self._batch += 1
                self.ready.put(slot)
        except BaseException as error:
            self.ready.put(error)

    def stop(self) -> bool:
        """Return whether the thread has ended: after the batch that it is filling."""
        self._stopped.set()
        self.free.put(-1)
        if threading.current_thread() is self:  # garbage is collected on any thread
            return False
        self.join(_JOIN_S)
        return not self.is_alive()


def _finish(workers: list[_Worker], on_close: Callable[[], None]) -> None:
    ended = [workers.pop().stop() for _ in range(len(workers))]
    if all(ended):  # else the thread may still be reading
        on_close()


class RingMemory:
    """A blob's memory that is one of several, in turn: what was put into a ring is shown without copying it.

    It is a :class:`paratrain.blob.Memory`; whoever shares it sees the turn too. Each place of the ring keeps its own
    host and device arrays.
    """

    def __init__(self, places: Sequence[SyncedMemory]) -> None:
        self._places = list(places)
        self._current = places[0]

    def replace(self, place: int, memory: SyncedMemory) -> None:
        """Put other memory, perhaps of another size, into a place that is not shown now."""
        self._places[place] = memory

    def show(self, place: int) -> None:
        """Turn to a place, whose host array has been written."""
        self._current = self._places[place]
        self._current.head = Head.AT_CPU  # whatever lies on a device belongs to an earlier batch

    @property
    def count(self) -> int:
        return self._current.count

    @property
    def dtype(self) -> Any:
        return self._current.dtype

    def host(self) -> HostArray:
        return self._current.host()

    def mutable_host(self) -> HostArray:
        return self._current.mutable_host()

    def device(self, device: Device) -> Any:
        return self._current.device(device)

    def mutable_device(self, device: Device) -> Any:
        return self._current.mutable_device(device)
