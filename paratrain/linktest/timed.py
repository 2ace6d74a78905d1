"""Communicators for tests of links: one whose messages have a time limit, and one that shows two ranks alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from paratrain.comm.communicator import Array, Communicator, Request
from paratrain.comm.patience import pauses
from paratrain.errors import CommunicationError

__all__ = ["LinkTimeoutError", "PairCommunicator", "TimedCommunicator"]


class LinkTimeoutError(CommunicationError):
    """A message that was not complete when its time was over."""


class TimedCommunicator(Communicator):
    """The ranks and messages of `inner`, with a limit: a wait that is not over by the deadline raises LinkTimeoutError.

    The deadline is that of the last `start_clock`. After a timeout a message of the pair is left lying: use it no more.
    """

    def __init__(self, inner: Communicator) -> None:
        super().__init__(inner.rank, inner.node_of_rank)
        self._inner = inner
        self._limit_s = float("inf")
        self._deadline = float("inf")

    def start_clock(self, limit_s: float) -> None:
        """From now on every wait ends within `limit_s` seconds of this call."""
        self._limit_s, self._deadline = limit_s, time.monotonic() + limit_s

    def wait_for(self, is_done: Callable[[], bool], what: str) -> None:
        """Return when `is_done` says so; LinkTimeoutError, which begins with `what`, if it does not by the deadline."""
        _wait(is_done, what, self._limit_s, self._deadline)

    def isend(self, array: Array, destination: int, tag: int = 0) -> Request:
        """As `inner` does."""
        what = f"rank {self.rank} could not send to rank {destination}"
        return _TimedRequest(self._inner.isend(array, destination, tag), what, self._limit_s, self._deadline)

    def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
        """As `inner` does."""
        what = f"nothing came to rank {self.rank} from rank {source}"
        return _TimedRequest(self._inner.ireceive(array, source, tag), what, self._limit_s, self._deadline)

    def check_all_present(self, action: str) -> None:
        """As `inner` does."""
        self._inner.check_all_present(action)

    def abort(self, code: int) -> NoReturn:
        """As `inner` does."""
        self._inner.abort(code)

    def close(self) -> None:
        """Leave `inner` open: it belongs to the caller."""


class _TimedRequest(Request):
    def __init__(self, inner: Request, what: str, limit_s: float, deadline: float) -> None:
        self._inner, self._what, self._limit_s, self._deadline = inner, what, limit_s, deadline

    def test(self) -> bool:
        return self._inner.test()

    def wait(self) -> None:
        _wait(self._inner.test, self._what, self._limit_s, self._deadline)


def _wait(is_done: Callable[[], bool], what: str, limit_s: float, deadline: float) -> None:
    for _ in pauses():
        if is_done():
            return
        if time.monotonic() > deadline:
            raise LinkTimeoutError(f"{what} within {limit_s:g} s")


class PairCommunicator(Communicator):
    """Two ranks of `inner` as if they were all: `first` is rank 0 of 2 and `second` rank 1. Only these two make one."""

    def __init__(self, inner: Communicator, first: int, second: int) -> None:
        self._ranks = first, second
        nodes = [inner.node_of_rank[rank] for rank in self._ranks]
        super().__init__(self._ranks.index(inner.rank), [0, int(nodes[0] != nodes[1])])
        self._inner = inner

    def isend(self, array: Array, destination: int, tag: int = 0) -> Request:
        """As `inner` does."""
        return self._inner.isend(array, self._ranks[destination], tag)

    def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
        """As `inner` does."""
        return self._inner.ireceive(array, self._ranks[source], tag)

    def check_all_present(self, action: str) -> None:
        """As `inner` does."""
        self._inner.check_all_present(action)

    def abort(self, code: int) -> NoReturn:
        """As `inner` does."""
        self._inner.abort(code)

    def close(self) -> None:
        """Leave `inner` open: it belongs to the caller."""
