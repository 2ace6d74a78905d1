"""What MPI's own Allreduce does, for ranks that are threads: so that the exchange built on it trains without processes."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from paratrain.comm.communicator import Array, Request
from paratrain.comm.threads import ThreadCommunicator


class _Sum(Request):
    """The n-th sum of all ranks: complete when the last of them has asked for it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._arrays: dict[int, Array] = {}
        self._is_complete = False

    def add(self, rank: int, array: Array) -> None:
        self._arrays[rank] = array
        if len(self._arrays) == self._size:
            total = functools.reduce(np.add, [self._arrays[other] for other in range(self._size)])
            for one in self._arrays.values():
                one[...] = total
            self._arrays.clear()
            self._is_complete = True

    def test(self) -> bool:
        return self._is_complete

    def wait(self) -> None:
        raise AssertionError("an exchange asks, and does not wait")


def give_threads_sums(patch: pytest.MonkeyPatch) -> None:
    """Let the ranks of ``run_threads`` have ``isum``, which adds in the order of the ranks."""

    def isum(self: ThreadCommunicator, array: Array) -> Request:
        with self._group.changed:
            own = vars(self)
            number = own["sum_count"] = own.get("sum_count", 0) + 1
            found: _Sum = vars(self._group).setdefault("sums", {}).setdefault(number, _Sum(self.size))
            found.add(self.rank, array)
        return found

    patch.setattr(ThreadCommunicator, "isum", isum)
