"""How long the pieces of some work take that is given to a backend one after the other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["HostTimer", "Timer"]


class Timer(Protocol):
    """Moments in the work of a backend, and what has passed between them."""

    def mark(self) -> None:
        """Note the moment at which all that was given to the backend so far is done."""

    def seconds(self) -> list[float]:
        """Return the seconds between each mark and the next, and forget the marks; waits for the last."""


class HostTimer:
    """Marks by the host's clock, each of which waits until the work is done."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._marks: list[float] = []

    def mark(self) -> None:
        self._synchronize()
        self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        marks, self._marks = self._marks, []
        return [end - begin for begin, end in itertools.pairwise(marks)]
