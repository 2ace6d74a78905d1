"""What every transport between ranks offers: a few point-to-point messages, and what can be made of them."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from paratrain.errors import CommunicationError

if TYPE_CHECKING:
    from paratrain.watching.watch import Watch

Array = NDArray[Any]


class Request(ABC):
    """A message on its way. The array belongs to the transport until `wait` has returned."""

    @abstractmethod
    def wait(self) -> None:
        """Return when the message is complete: sent arrays may be written again, received ones hold the message.

        CommunicationError if the other rank is gone or sent a message of another size.
        """

    @abstractmethod
    def test(self) -> bool:
        """Whether the message is complete, without waiting for it. Raises what `wait` raises, but for a rank that is gone."""


class Communicator(ABC):
    """The place of this process among the ranks, and the messages between them.

    Messages between two ranks with the same `tag`, a number below 32,768, arrive in the order in which they were sent;
    messages of different tags do not wait for each other. Arrays are C-contiguous and have the same size and dtype on
    both sides. Sending may wait until the receiver has asked for the message: never write code that needs a buffer in
    between.
    """

    has_own_sums: ClassVar[bool] = False
    """Whether `isum` works."""

    meanwhile: Callable[[], object] | None = None
    """Is called again and again while this rank waits for others: jobs that are under way go on (see `Progress`), which
    others may need before they can answer."""

    watch: Watch | None = None
    """Shows where this rank is to those who watch, where somebody does: see `paratrain.comm.watch`."""

    def __init__(self, rank: int, node_of_rank: Sequence[int]) -> None:
        self._rank = rank
        self._node_of_rank = tuple(node_of_rank)
        mates = [r for r, node in enumerate(self._node_of_rank) if node == self._node_of_rank[rank]]
        self._local_rank, self._local_size = mates.index(rank), len(mates)

    @property
    def rank(self) -> int:
        """The number of this rank, 0 .. size-1."""
        return self._rank

    @property
    def size(self) -> int:
        """The count of ranks."""
        return len(self._node_of_rank)

    @property
    def local_rank(self) -> int:
        """The number of this rank among the ranks of its node, in rank order."""
        return self._local_rank

    @property
    def local_size(self) -> int:
        """The count of ranks on this rank's node."""
        return self._local_size

    @property
    def node_of_rank(self) -> tuple[int, ...]:
        """For each rank the number of its node. Nodes are numbered from 0 in the order of their lowest ranks.

        Ranks of one node can share memory.
        """
        return self._node_of_rank

    @abstractmethod
    def isend(self, array: Array, destination: int, tag: int = 0) -> Request:
        """Start sending `array` to rank `destination`; the array must not be written before the wait."""

    @abstractmethod
    def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
        """Start receiving from rank `source` into the caller's `array`, which must not be used before the wait."""

    def isum(self, array: Array) -> Request:
        """Start replacing `array` by its sum over all ranks, on every rank, by the transport's own means.

        All ranks make these calls in the same order. CommunicationError where the transport has no such means.
        """
        raise CommunicationError(
            f"rank {self.rank} of {self.size}: these ranks are not joined by MPI, and only MPI has sums of its own"
        )

    @abstractmethod
    def check_all_present(self, action: str) -> None:
        """Raise CommunicationError if some rank has ended, so that waiting for it, while `action`, is in vain."""

    @abstractmethod
    def abort(self, code: int) -> NoReturn:
        """End all ranks at once with this exit code, without asking them. Flush what should be read before."""

    @abstractmethod
    def close(self) -> None:
        """Give the transport's resources back. All ranks call it when no message is on its way; twice is harmless."""

    def send(self, array: Array, destination: int) -> None:
        """Send `array` to rank `destination` and wait until it may be written again."""
        self.isend(array, destination).wait()

    def receive(self, array: Array, source: int) -> None:
        """Receive a message from rank `source` into the caller's `array` and wait for it."""
        self.ireceive(array, source).wait()

    def barrier(self) -> None:
        """Return when all ranks have called it."""
        self.allgather_objects(None)

    def broadcast_object(self, obj: Any, root: int = 0) -> Any:
        """The root's `obj` (anything that pickles) on every rank; the other ranks' `obj` is not looked at."""
        if self.rank != root:
            return self._receive_object(root)
        message = pickle.dumps(obj)
        for destination in range(self.size):
            if destination != root:
                self._send_bytes(message, destination)
        return obj

    def gather_objects(self, obj: Any, root: int = 0) -> list[Any] | None:
        """The root gets every rank's `obj` (anything that pickles) in rank order, the others None."""
        if self.rank != root:
            self._send_bytes(pickle.dumps(obj), root)
            return None
        return [obj if source == root else self._receive_object(source) for source in range(self.size)]

    def allgather_objects(self, obj: Any) -> list[Any]:
        """Every rank gets every rank's `obj` (anything that pickles) in rank order."""
        gathered: list[Any] = self.broadcast_object(self.gather_objects(obj))
        return gathered

    def _send_bytes(self, message: bytes, destination: int) -> None:
        self.send(np.array([len(message)], np.int64), destination)
        self.send(np.frombuffer(message, np.uint8), destination)

    def _receive_object(self, source: int) -> Any:
        length = np.empty(1, np.int64)
        self.receive(length, source)
        message = np.empty(int(length[0]), np.uint8)
        self.receive(message, source)
        return pickle.loads(message.tobytes())  # noqa: S301, from another rank of the same job

    def _check_peer(self, peer: int) -> None:
        if not 0 <= peer < self.size or peer == self.rank:
            raise CommunicationError(
                f"rank {self.rank} of {self.size}: asked for a message to or from rank {peer}, "
                f"expected one of the other ranks 0..{self.size - 1}"
            )


def as_bytes(array: Array) -> NDArray[np.uint8]:
    """A view of a C-contiguous array's memory as bytes."""
    assert array.flags.c_contiguous, "only C-contiguous arrays are sent and received"
    return array.reshape(-1).view(np.uint8)
