"""Batches prepared ahead of time by threads, in a ring of places that are used over and over."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple, TypeVar

from paratrain.errors import DataError

__all__ = ["Prefetcher", "call_within"]

Slot = tuple[Any, ...]
Fill = Callable[..., None]
T = TypeVar("T")

# Longer than reading one piece of a batch takes; threads that hang in a dead file system are left behind.
_JOIN_S = 10.0
_FIRST_LOOK_S = 1.0


def _unknown(batch: int) -> list[str]:  # noqa: ARG001
    return []


def call_within(limit_s: float, function: Callable[[], T], what: Callable[[], str]) -> T:
    """Return ``function()``, or raise what it raises; DataError, which begins with ``what()``, if that takes too long. Then
    its thread is left behind.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="paratrain-reading", daemon=True).start()
    try:
        return outcome.result(limit_s)
    except FutureTimeoutError:
        if outcome.done():  # it was what the function raised
            raise
        raise _took_too_long(what(), limit_s) from None


def _took_too_long(what: str, limit_s: float) -> DataError:
    return DataError(
        f"{what} has not ended within {limit_s:g} s. Does the disk or network that it lies on answer? If it is only slow, "
        "allow more time (--data-timeout)"
    )


class Prefetcher:
    """Calls ``fill(batch, piece, *slots[i])`` ahead of the consumer, who takes batch 0, 1, 2 ... in that order.

    ``slots`` say where batches go, such as the arrays of each place in the ring, owned by the caller. A batch is made
    of ``piece_count`` pieces, filled independently of each other by any of ``worker_count`` threads, which begin them in
    order: batches come out in order too, whoever ends first. ``get`` lends one place out: it is filled again after the
    next ``get``. The threads start at the first ``get`` and end with ``close``, when the prefetcher is
    garbage-collected, and when the interpreter exits; then ``on_close`` is called, once, to free what ``fill`` reads from.

    What ``fill`` raises is raised by the ``get`` that would have returned its batch, and by all later ones. ``reading``
    names what is being read for a batch at the moment: a ``get`` raises DataError when that has stayed the same for
    ``time_limit_s``.
    """

    def __init__(
        self,
        fill: Fill,
        slots: Sequence[Slot],
        on_close: Callable[[], None] = lambda: None,
        *,
        worker_count: int = 1,
        piece_count: int = 1,
        time_limit_s: float = 120.0,
        reading: Callable[[int], list[str]] = _unknown,
    ) -> None:
        assert slots and worker_count > 0 and piece_count > 0
        self._fill = fill
        self._slots = slots
        self._worker_count = worker_count
        self._piece_count = piece_count
        self._time_limit_s = time_limit_s
        self._reading = reading
        self._next_batch = 0
        self._lent: int | None = None
        self._error: BaseException | None = None  # what was raised; by its frames it leads back here
        self._crews: list[_Crew] = []  # the one that works, if any; the finalizer has it too, and must not have self
        self._finalizer = weakref.finalize(self, _finish, self._crews, on_close)
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
        if self._error is not None:
            raise self._error
        crew = self._working_crew()
        if self._lent is not None:
            crew.give_back(self._lent)
            self._lent = None
        start = time.perf_counter()
        try:
            ready = self._wait_for_batch(crew)
        finally:
            self.wait_s += time.perf_counter() - start
        self._lent = ready
        self._next_batch += 1
        return ready

    def seek(self, batch: int) -> None:
        """Go on with batch number ``batch``. What was prepared is dropped; the slot that is lent out keeps its values."""
        while self._crews:
            if not self._crews.pop().stop():
                raise DataError(f"reading a batch has not ended within {_JOIN_S:.0f} s; does the file system answer?")
        self._next_batch = batch
        self._error = None

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        self._finalizer()

    def _working_crew(self) -> _Crew:
        if not self._crews:
            free = [slot for slot in range(len(self._slots)) if slot != self._lent]
            crew = _Crew(self._fill, self._slots, free, self._next_batch, self._worker_count, self._piece_count)
            self._crews.append(crew)
            crew.start()
        return self._crews[0]

    def _wait_for_batch(self, crew: _Crew) -> int:
        """Wait as long as something moves."""
        batch, seen = self._next_batch, [""]
        ready = crew.wait(batch, min(_FIRST_LOOK_S, self._time_limit_s))
        while not isinstance(ready, int):
            if ready is not None:
                self._error = ready
                raise ready
            before, seen = seen, self._reading(batch)
            if before == seen:
                crew.hangs = True
                raise _took_too_long(f"{seen[0]}: reading it" if seen else "reading a batch", self._time_limit_s)
            ready = crew.wait(batch, self._time_limit_s)
        return ready


class _Piece(NamedTuple):
    batch: int
    piece: int
    slot: int


class _Crew:
    """Threads that fill free slots until they are stopped or ``fill`` raises, and what they tell each other.

    They must not refer to the prefetcher, which ends them when it is garbage-collected.
    """

    def __init__(
        self, fill: Fill, slots: Sequence[Slot], free: Sequence[int], first: int, worker_count: int, piece_count: int
    ) -> None:
        self._fill = fill
        self._slots = slots
        self._piece_count = piece_count
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # for workers: there is a piece to fill, or an end
        self._done = threading.Condition(lock)  # for the consumer: a batch is ready, or will never be
        self._free = deque(free)
        self._next_batch = first
        self._begun: deque[_Piece] = deque()  # the pieces of the batch begun last that nobody fills yet
        self._missing: dict[int, int] = {}  # of each begun batch, the pieces that are not filled
        self._ready: dict[int, int] = {}  # the slot of each batch that is
        self._errors: dict[int, tuple[int, BaseException]] = {}  # of each batch that failed, the first such piece's
        self._stopped = self._failed = False
        self.hangs = False
        """Whether a thread has been seen to hang: it is not waited for again."""
        self._threads = [
            threading.Thread(target=self._run, name="paratrain-prefetch", daemon=True) for _ in range(worker_count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def give_back(self, slot: int) -> None:
        """Let a slot be filled again."""
        with self._work:
            self._free.append(slot)
            self._work.notify(self._piece_count)

    def wait(self, batch: int, limit_s: float) -> int | BaseException | None:
        """Return the slot of a batch or, once, what filling it has raised; None where it is not ready in time."""
        with self._done:
            if not self._done.wait_for(lambda: batch in self._ready or self._has_failed(batch), limit_s):
                return None
            if batch in self._errors:
                return self._errors.pop(batch)[1]
            return self._ready.pop(batch)

    def _has_failed(self, batch: int) -> bool:
        """Whether all pieces of a batch are done with, so that its first error is the same in every run."""
        return batch in self._errors and batch not in self._missing

    def stop(self) -> bool:
        """Return whether all threads have ended: after the pieces that they are filling."""
        with self._work:
            self._stopped = True
            self._work.notify_all()
        if threading.current_thread() in self._threads:  # garbage is collected on any thread
            return False
        deadline = time.monotonic() + (0.0 if self.hangs else _JOIN_S)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        piece = self._next_piece()
        while piece is not None:
            error: BaseException | None = None
            try:
                self._fill(piece.batch, piece.piece, *self._slots[piece.slot])
            except BaseException as raised:
                error = raised
            self._finish(piece, error)
            piece, error = None, None  # an idle thread keeps nothing alive
            piece = self._next_piece()

    def _next_piece(self) -> _Piece | None:
        """The piece to fill next, or None at the end."""
        with self._work:
            while not self._stopped:
                if self._begun:
                    return self._begun.popleft()
                if self._failed:
                    return None
                if self._free:
                    batch, slot = self._next_batch, self._free.popleft()
                    self._next_batch += 1
                    self._missing[batch] = self._piece_count
                    self._begun.extend(_Piece(batch, piece, slot) for piece in range(self._piece_count))
                    continue
                self._work.wait()
            return None

    def _finish(self, piece: _Piece, error: BaseException | None) -> None:
        with self._done:
            if error is not None:
                self._failed = True
                self._work.notify_all()
                known = self._errors.get(piece.batch)
                if known is None or piece.piece < known[0]:
                    self._errors[piece.batch] = (piece.piece, error)
            self._missing[piece.batch] -= 1
            if not self._missing[piece.batch]:
                del self._missing[piece.batch]
                if piece.batch not in self._errors:
                    self._ready[piece.batch] = piece.slot
            self._done.notify()


def _finish(crews: list[_Crew], on_close: Callable[[], None]) -> None:
    ended = [crews.pop().stop() for _ in range(len(crews))]
    if all(ended):  # else a thread may still be reading
        on_close()
