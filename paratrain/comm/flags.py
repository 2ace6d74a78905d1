"""Flags in shared memory, by which the ranks of a node tell each other how far they are."""

from __future__ import annotations

import threading
from typing import ClassVar

from paratrain.comm.communicator import Array
from paratrain.comm.progress import Condition

__all__ = ["Flags"]


class Flags:
    """For each rank of a node, each slice and each kind of news, the number of the last step that it is true of.

    `counters` are int64 arrays of ``Flags.length(slice_count)``, one for each local rank, which only that rank writes.
    """

    READY: ClassVar[int] = 0
    """The rank's gradient of the slice may be read."""
    WRITTEN: ClassVar[int] = 1
    """The rank has written its part of the parameters, and reads no gradients of the slice any more."""

    _KINDS: ClassVar[int] = 2

    @classmethod
    def length(cls, slice_count: int) -> int:
        """The elements of one rank's counters."""
        return cls._KINDS * slice_count

    def __init__(self, counters: list[Array], member: int) -> None:
        self._counters = [counter.data for counter in counters]  # an element is read faster than from an array
        self._own = self._counters[member]
        self._fence = threading.Lock()
        self._fence.acquire()

    def next_step(self, kind: int, index: int) -> int:
        """The number of the step that this rank will announce next."""
        step: int = self._own[self._KINDS * index + kind] + 1
        return step

    def announce(self, kind: int, index: int) -> int:
        """Tell the others that this rank has got so far with slice `index` once more; return the number of the step."""
        step = self.next_step(kind, index)
        self._pass_fence()
        self._own[self._KINDS * index + kind] = step
        return step

    def reached(self, member: int, kind: int, index: int, step: int) -> Condition:
        """The question whether local rank `member` has got so far."""
        place = self._KINDS * index + kind
        counter = self._counters[member]
        return lambda: counter[place] >= step and self._pass_fence()

    def all_reached(self, kind: int, index: int, step: int) -> Condition:
        """The question whether all ranks of the node have got so far."""
        place = self._KINDS * index + kind
        counters = self._counters
        return lambda: all(counter[place] >= step for counter in counters) and self._pass_fence()

    def _pass_fence(self) -> bool:
        """Keep what comes before in the program before what comes after, also on processors that reorder; return True.

        Releasing a lock lets nothing sink below it, and acquiring one lets nothing rise above.
        """
        self._fence.release()
        self._fence.acquire()
        return True
