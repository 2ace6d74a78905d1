"""Small arrays between the ranks of one node: written into memory that all see, which is quicker than a message."""

from __future__ import annotations

import threading

import numpy as np

from paratrain.comm.communicator import Array, Communicator
from paratrain.comm.patience import wait_until
from paratrain.comm.shared_memory import share

__all__ = ["SharedBoard"]

_DEPTH = 2
"""Arrays of one rank that may lie on the board without having been read by all whom they are for."""
_COUNTER_COUNT = 8
_WRITTEN, _READ = 0, 1


class SharedBoard:
    """Sums to one rank, and its values to all, for arrays of at most ``CAPACITY`` bytes.

    Every rank has places of its own, into which only it writes, and counts there what it has written and read. It waits
    before it writes over something that has not been read. The root reads in sums and writes in broadcasts, the others the
    reverse. All ranks make the same calls in the same order. Sums are added in
    the order of the ranks, the same bits in every run.
    """

    CAPACITY = 1 << 14

    def __init__(self, communicator: Communicator, root: int, counters: list[Array], places: list[Array]) -> None:
        self._communicator = communicator
        self._rank, self._root = communicator.rank, root
        # By rank: the numbers of arrays that it has written, and read.
        self._counters = [counter.data for counter in counters]
        self._places = [place.reshape(_DEPTH, self.CAPACITY) for place in places]
        self._own = self._counters[self._rank]
        self._fence = threading.Lock()
        self._fence.acquire()
        self._sum_count = self._broadcast_count = 0

    @classmethod
    def create(cls, communicator: Communicator, root: int) -> SharedBoard | None:
        """Return a board for the ranks of a communicator, which all call this; None where they do not share memory."""
        if communicator.local_size != communicator.size:
            return None
        shared = share(communicator, [_DEPTH * cls.CAPACITY, 8 * _COUNTER_COUNT], np.uint8)
        if isinstance(shared, str):
            return None
        places, counters = shared
        return cls(communicator, root, [counter.view(np.int64) for counter in counters], places)

    def reduce(self, array: Array) -> None:
        """Replace the root's ``array`` by the sum over ranks; the others' is left as it is."""
        others = [rank for rank in range(self._communicator.size) if rank != self._root]
        number = self._sum_count = self._sum_count + 1
        if self._rank != self._root:
            self._write(self._rank, array, number, readers=[self._root])
            return
        parts = {self._root: array.copy()}
        for rank in others:
            parts[rank] = self._read(rank, array, number)
        np.copyto(array, parts[0])
        for rank in range(1, self._communicator.size):
            np.add(array, parts[rank], out=array)
        self._tell(_READ, number)

    def broadcast(self, array: Array) -> None:
        """Replace ``array`` by the root's."""
        number = self._broadcast_count = self._broadcast_count + 1
        if self._rank == self._root:
            others = [rank for rank in range(self._communicator.size) if rank != self._root]
            self._write(self._root, array, number, readers=others)
        else:
            np.copyto(array, self._read(self._root, array, number))
            self._tell(_READ, number)

    def _write(self, rank: int, array: Array, number: int, readers: list[int]) -> None:
        self._wait(_READ, readers, number - _DEPTH)
        self._place(rank, array, number)[...] = array
        self._tell(_WRITTEN, number)

    def _read(self, rank: int, like: Array, number: int) -> Array:
        self._wait(_WRITTEN, [rank], number)
        return self._place(rank, like, number)

    def _place(self, rank: int, like: Array, number: int) -> Array:
        assert like.nbytes <= self.CAPACITY, "only small arrays are exchanged by the board"
        place: Array = self._places[rank][number % _DEPTH][: like.nbytes].view(like.dtype).reshape(like.shape)
        return place

    def _tell(self, kind: int, number: int) -> None:
        self._pass_fence()
        self._own[kind] = number

    def _wait(self, kind: int, ranks: list[int], number: int) -> None:
        counters = [self._counters[rank] for rank in ranks]
        wait_until(
            lambda: all(counter[kind] >= number for counter in counters),
            lambda: self._communicator.check_all_present("waiting for other ranks"),
            meanwhile=self._communicator.meanwhile,
        )
        self._pass_fence()

    def _pass_fence(self) -> None:
        """What was written or read before is done before the number is seen, also on processors that reorder."""
        self._fence.release()
        self._fence.acquire()
