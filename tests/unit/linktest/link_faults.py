"""What spoils the link of one pair of ranks in one way: its messages, or the memory that they share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from paratrain.comm.communicator import Array, Communicator, Request
from paratrain.comm.progress import Condition
from paratrain.errors import CommunicationError
from paratrain.linktest.pattern import CANARY
from paratrain.linktest.shared import SharedLinks

FAULTS = ("corrupt", "drop", "slow", "late", "raise", "misdeliver")
SLOW_S = 0.01
SHARED_FAULTS = ("shared-corrupt", "shared-drop", "shared-raise")

Announce = Callable[[SharedLinks, tuple[int, int]], Condition]


class FaultyCommunicator(Communicator):
    """The messages of `inner`; those of the `pair` with a fault.

    corrupt: one byte is changed. drop: the message never leaves. slow: it leaves after a while, late: after `late_s`.
    raise: an error. misdeliver: the message of the same size before this one arrives again. From the message `first` on.
    """

    def __init__(
        self, inner: Communicator, pair: tuple[int, int], fault: str, first: int = 0, late_s: float = 1.5
    ) -> None:
        assert fault in FAULTS
        super().__init__(inner.rank, inner.node_of_rank)
        self.inner, self.pair, self.fault, self.first, self.late_s = inner, pair, fault, first, late_s
        self.sent_count = 0
        self.before: dict[int, Array] = {}

    def isend(self, array: Array, destination: int, tag: int = 0) -> Request:
        if {self.rank, destination} != set(self.pair):
            return self.inner.isend(array, destination, tag)
        self.sent_count += 1
        if self.sent_count <= self.first:
            return self.inner.isend(array, destination, tag)
        if self.fault == "raise":
            raise CommunicationError(f"sending to rank {destination} failed: the cable was cut")
        if self.fault == "drop":
            return Nothing()
        if self.fault in ("slow", "late"):
            return Late(self.inner, array, destination, tag, SLOW_S if self.fault == "slow" else self.late_s)
        copy = array.copy()
        if self.fault == "corrupt":
            copy.reshape(-1).view("u1")[copy.nbytes // 2] ^= 1
        else:
            copy = self.before.get(copy.nbytes, copy)
            self.before[array.nbytes] = array.copy()
        return Keeping(self.inner.isend(copy, destination, tag), copy)

    def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
        return self.inner.ireceive(array, source, tag)

    def check_all_present(self, action: str) -> None:
        self.inner.check_all_present(action)

    def abort(self, code: int) -> NoReturn:
        self.inner.abort(code)

    def close(self) -> None:
        self.inner.close()


class Nothing(Request):
    def wait(self) -> None:
        pass

    def test(self) -> bool:
        return True


class Keeping(Request):
    """Keeps the array until the message has left."""

    def __init__(self, inner: Request, array: Array) -> None:
        self.inner, self.array = inner, array

    def wait(self) -> None:
        self.inner.wait()

    def test(self) -> bool:
        return self.inner.test()


class Late(Request):
    def __init__(self, inner: Communicator, array: Array, destination: int, tag: int, late_s: float) -> None:
        self.inner, self.array, self.destination, self.tag = inner, array, destination, tag
        self.due = time.monotonic() + late_s
        self.request: Request | None = None

    def test(self) -> bool:
        if self.request is None:
            if time.monotonic() < self.due:
                return False
            self.request = self.inner.isend(self.array, self.destination, self.tag)
        return self.request.test()

    def wait(self) -> None:
        while not self.test():
            time.sleep(0.001)


def faulty_announce(
    pair: tuple[int, int], fault: str, announce: Announce = SharedLinks.announce, first: int = 0
) -> Announce:
    """In place of `SharedLinks.announce`: the parent's end of the link `pair` has a fault from the step `first` on.

    corrupt: a byte of both pieces is changed. drop: the flag is never set. raise: an error.
    """
    assert fault in SHARED_FAULTS
    counts: dict[int, int] = {}

    def instead(links: SharedLinks, edge: tuple[int, int]) -> Condition:
        if set(edge) != set(pair) or links.rank != edge[0]:
            return announce(links, edge)
        counts[links.rank] = counts.get(links.rank, 0) + 1
        if counts[links.rank] <= first:
            return announce(links, edge)
        if fault == "shared-raise":
            raise CommunicationError("the memory was taken away")
        if fault == "shared-drop":
            return lambda: False
        for owner in edge:
            links.piece(owner, edge)[1000] = CANARY
        return announce(links, edge)

    return instead
