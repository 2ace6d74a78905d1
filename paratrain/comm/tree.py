"""The exchange over one tree: arrays go down from the root, sums come up to it, in chunks that follow each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from paratrain.comm.communicator import Array, Communicator, Request
from paratrain.errors import CommunicationError
from paratrain.topology.tree import Tree

# 1 MB of float32: large enough to hide the cost of a message, small enough to stay in a core's second-level cache.
ELEMENTS_PER_CHUNK = 256 * 1024
# While one received chunk is added, the next is already on its way.
_BUFFER_COUNT = 2


def receive_buffer_bytes(item_bytes: int) -> int:
    """The memory in which a rank with children receives arrays of this item size; those without take none."""
    return _BUFFER_COUNT * ELEMENTS_PER_CHUNK * item_bytes


class TreeExchange:
    """Broadcast down and reduce up the `tree`, whose members are the ranks of `communicator`.

    All ranks make the same calls in the same order, with arrays of the same size and dtype, C-contiguous. A parent adds
    its children in the tree's order, each element as ((own + child 0) + child 1) + ..., so that the same tree gives the
    same bits on every run and with every transport and chunk size. The receive buffers,
    two chunks for each dtype, are allocated once.
    """

    def __init__(self, communicator: Communicator, tree: Tree, elements_per_chunk: int = ELEMENTS_PER_CHUNK) -> None:
        if tree.size != communicator.size:
            raise CommunicationError(
                f"rank {communicator.rank} of {communicator.size}: the tree joins {tree.size} ranks; "
                f"make a tree of {communicator.size}"
            )
        assert elements_per_chunk > 0
        self._communicator = communicator
        self._root = tree.root
        self._parent = tree.parent[communicator.rank]
        self._children = tree.children[communicator.rank]
        self._elements_per_chunk = elements_per_chunk
        self._buffers: dict[np.dtype[np.generic], list[Array]] = {}

    @property
    def root(self) -> int:
        """The rank at which sums arrive and from which broadcasts start."""
        return self._root

    def broadcast(self, array: Array) -> None:
        """The root's `array` on every rank, received in place. A chunk is passed on while the next is received.

        A parent sends to the child that it adds last first: that one has the most ranks below it, or is ready last.
        """
        chunks = self._chunks(array)
        sends: list[Request] = []
        arriving: list[Request] = []
        if self._parent is not None:
            arriving = [self._communicator.ireceive(chunk, self._parent) for chunk in chunks]
        for index, chunk in enumerate(chunks):
            if arriving:
                arriving[index].wait()
            sends.extend(self._communicator.isend(chunk, child) for child in reversed(self._children))
        for send in sends:
            send.wait()

    def reduce(self, array: Array) -> None:
        """The sum over ranks in the root's `array`, in place.

        Elsewhere `array` is left with the sums over the rank's own subtree. A chunk goes up while the next is received.
        """
        arriving = self._receive_ahead(array)
        sends: list[Request] = []
        for chunk in self._chunks(array):
            for request, buffer in islice(arriving, len(self._children)):
                request.wait()
                np.add(chunk, buffer, out=chunk)
            if self._parent is not None:
                sends.append(self._communicator.isend(chunk, self._parent))
        for send in sends:
            send.wait()

    def mean_scalars(self, values: Sequence[float]) -> list[float]:
        """The averages over ranks of a few scalars, in float64, at the root; elsewhere the rank's own values again."""
        sums = np.array(values, np.float64)
        self.reduce(sums)
        if self._communicator.rank != self._root:
            return [float(value) for value in values]
        return [float(total) / self._communicator.size for total in sums]

    def _chunks(self, array: Array) -> list[Array]:
        """`array` cut into views of `elements_per_chunk` elements; the last may be shorter."""
        assert array.flags.c_contiguous, "only C-contiguous arrays are exchanged"
        flat, step = array.reshape(-1), self._elements_per_chunk
        return [flat[start : start + step] for start in range(0, flat.size, step)]

    def _receive_ahead(self, array: Array) -> Iterator[tuple[Request, Array]]:
        """The children's chunks (chunk by chunk, child by child), each with the buffer it arrives in.

        A buffer is asked to receive again only when the caller comes back, having used up what it held.
        """
        buffers = self._buffers_of(array.dtype)
        waiting: deque[tuple[Request, Array]] = deque()
        used = 0
        for chunk in self._chunks(array):
            for child in self._children:
                buffer = buffers[used % _BUFFER_COUNT][: chunk.size]
                waiting.append((self._communicator.ireceive(buffer, child), buffer))
                used += 1
                if len(waiting) == _BUFFER_COUNT:
                    yield waiting.popleft()
        yield from waiting

    def _buffers_of(self, dtype: np.dtype[np.generic]) -> list[Array]:
        if not self._children:
            return []
        if dtype not in self._buffers:
            self._buffers[dtype] = [np.empty(self._elements_per_chunk, dtype) for _ in range(_BUFFER_COUNT)]
        return self._buffers[dtype]
