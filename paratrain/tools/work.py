"""What the tools share: work in threads whose results come in order, and how far it has come."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from paratrain.log import ProgressBar

__all__ = ["Work", "core_count", "ordered_map"]

logger = logging.getLogger(__name__)

_AHEAD_PER_THREAD = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], thread_count: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, in order, computed by threads a bounded way ahead of who asks.

    ``items`` is walked in the caller's thread. With one thread everything is done there. Close the iterator
    (``contextlib.closing``) so that work which is no longer wanted is dropped when an error ends the loop.
    """
    if thread_count <= 1:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(thread_count, "paratrain-tool") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= _AHEAD_PER_THREAD * thread_count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Work:
    """How far a tool has come: a bar on a terminal, Caffe's line in the log every ``log_every`` steps, the speed at the end.

    A context manager. ``unit`` names what is counted, in the plural; ``total`` is None where it is not known.
    """

    def __init__(self, total: int | None, unit: str, *, log_every: int = 1000) -> None:
        self.count = 0
        self.unit = unit
        self._log_every = log_every
        self._bar = ProgressBar(total, unit=f" {unit}")
        self._start_s = time.perf_counter()
        self.elapsed_s = 0.0

    def __enter__(self) -> Work:
        self._bar.__enter__()
        return self

    def advance(self) -> None:
        """Count one."""
        self.count += 1
        self._bar.advance()
        if self._log_every and self.count % self._log_every == 0:
            logger.info("Processed %d files.", self.count)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.elapsed_s = time.perf_counter() - self._start_s
        self._bar.__exit__(kind, error, trace)
        if kind is None and self._log_every and self.count % self._log_every:
            logger.info("Processed %d files.", self.count)

    def speed(self) -> str:
        """Such as ``24 images in 0.1 s (240 images/s)``."""
        rate = self.count / self.elapsed_s if self.elapsed_s > 0 else 0.0
        return f"{self.count:,} {self.unit} in {self.elapsed_s:,.1f} s ({rate:,.0f} {self.unit}/s)"
