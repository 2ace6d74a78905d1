"""Results that are worked out once and kept for a while, whichever threads ask for them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Kept"]

_T = TypeVar("_T")

_JOIN_S = 10.0


class Kept(Generic[_T]):
    """The last ``count`` results of ``make``, a function of two numbers; each is worked out once, while others wait for it.

    What ``make`` raises is raised to all who ask, and is not kept.
    """

    def __init__(self, make: Callable[[int, int], _T], count: int, thread_name: str) -> None:
        self._make = make
        self._count = count
        self._thread_name = thread_name
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._futures: OrderedDict[tuple[int, int], Future[_T]] = OrderedDict()

    def __call__(self, first: int, second: int = 0) -> _T:
        key = (first, second)
        with self._lock:
            future = self._futures.get(key)
            is_new = future is None
            if future is None:
                future = self._futures[key] = Future()
            self._futures.move_to_end(key)
            while len(self._futures) > self._count:
                self._futures.popitem(last=False)
        if is_new:
            try:
                future.set_result(self._make(first, second))
            except BaseException as error:
                future.set_exception(error)
                with self._lock:
                    if self._futures.get(key) is future:
                        del self._futures[key]
                raise
        return future.result()

    def has(self, first: int, second: int = 0) -> bool:
        """Whether the result is kept, or being worked out."""
        with self._lock:
            return (first, second) in self._futures

    def is_ready(self, first: int, second: int = 0) -> bool:
        """Whether asking for the result takes no time."""
        with self._lock:
            future = self._futures.get((first, second))
            return future is not None and future.done()

    def make_ahead(self, first: int, second: int = 0) -> None:
        """Let a thread work out a result that is not kept. If that fails, whoever asks for it tries again, and is told."""
        if not self.has(first, second):
            thread = threading.Thread(target=self._try, args=(first, second), name=self._thread_name, daemon=True)
            thread.start()
            self._threads = [other for other in self._threads if other.is_alive()] + [thread]

    def close(self) -> None:
        """Wait for the threads, but for one that hangs in a dead file system, and forget everything."""
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            self._futures.clear()

    def _try(self, first: int, second: int) -> None:
        with contextlib.suppress(Exception):
            self(first, second)
