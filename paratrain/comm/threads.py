"""Ranks as threads of one process: the same code as between processes, for tests and for trying things out."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from paratrain.comm.communicator import Array, Communicator, Request, as_bytes
from paratrain.errors import CommunicationError

Result = TypeVar("Result")

# Between two looks at other jobs of a rank that waits.
_PAUSE_S = 0.001


class _Group:
    """What the threads share: one lock, the messages that wait for their other half, and who has ended and why."""

    def __init__(self, size: int) -> None:
        self.changed = threading.Condition()
        # By source, destination and tag.
        self.sends: dict[tuple[int, int, int], deque[_ThreadRequest]] = defaultdict(deque)
        self.receives: dict[tuple[int, int, int], deque[_ThreadRequest]] = defaultdict(deque)
        self.ended: set[int] = set()
        self.failures: list[tuple[int, BaseException]] = []
        self.size = size

    def end(self, rank: int, failure: BaseException | None) -> None:
        """A rank has left; the others are woken, and with a failure none of their waits succeeds any more."""
        with self.changed:
            self.ended.add(rank)
            if failure is not None:
                self.failures.append((rank, failure))
            self.changed.notify_all()

    def check_failures(self, rank: int) -> None:
        """Tell `rank`, by CommunicationError, if another has failed."""
        if self.failures:
            failed, failure = self.failures[0]
            raise CommunicationError(
                f"rank {rank} of {self.size}: rank {failed} ended with {type(failure).__name__}: {failure}"
            )


class _ThreadRequest(Request):
    def __init__(self, owner: ThreadCommunicator, array: Array, peer: int) -> None:
        self._owner, self._group, self._array, self._rank, self._peer = owner, owner._group, array, owner.rank, peer
        self._complete = False
        self._mismatch = ""

    def match(self, source: _ThreadRequest) -> None:
        """Called under the lock on the receiving half: copy the message, or note on both halves why that is wrong."""
        sent, wanted = source._array, self._array
        if sent.dtype == wanted.dtype and sent.size == wanted.size:
            as_bytes(wanted)[:] = as_bytes(sent)
        else:
            self._mismatch = source._mismatch = (
                f"rank {self._rank} expected {wanted.size} elements of {wanted.dtype} from rank {source._rank}, "
                f"which sent {sent.size} of {sent.dtype}"
            )
        self._complete = source._complete = True

    def wait(self) -> None:
        group, meanwhile = self._group, self._owner.meanwhile
        while meanwhile is not None and not self._is_decided():
            meanwhile()
            with group.changed:
                group.changed.wait_for(self._is_decided, _PAUSE_S)
        with group.changed:
            group.changed.wait_for(self._is_decided)
            if not self._complete:
                group.check_failures(self._rank)
                raise CommunicationError(
                    f"{self._place}: waits for a message to or from rank {self._peer}, which has ended"
                )
        self.test()

    def _is_decided(self) -> bool:
        return self._complete or bool(self._group.failures) or self._peer in self._group.ended

    def test(self) -> bool:
        with self._group.changed:
            if self._mismatch:
                raise CommunicationError(f"{self._place}: {self._mismatch}")
            return self._complete

    @property
    def _place(self) -> str:
        return f"rank {self._rank} of {self._group.size}"


class ThreadCommunicator(Communicator):
    """One rank of `run_threads`. Sending waits for the receiver, which is the strictest that MPI allows."""

    def __init__(self, group: _Group, rank: int, node_of_rank: Sequence[int]) -> None:
        super().__init__(rank, node_of_rank)
        self._group = group

    def isend(self, array: Array, destination: int, tag: int = 0) -> Request:
        """Hand the array itself over: it is copied when the receiver asks for it."""
        self._check_peer(destination)
        as_bytes(array)
        request = _ThreadRequest(self, array, destination)
        with self._group.changed:
            waiting = self._group.receives[self.rank, destination, tag]
            if waiting:
                waiting.popleft().match(request)
                self._group.changed.notify_all()
            else:
                self._group.sends[self.rank, destination, tag].append(request)
        return request

    def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
        """Take the oldest message of `source` that nobody has asked for."""
        self._check_peer(source)
        as_bytes(array)
        request = _ThreadRequest(self, array, source)
        with self._group.changed:
            waiting = self._group.sends[source, self.rank, tag]
            if waiting:
                request.match(waiting.popleft())
                self._group.changed.notify_all()
            else:
                self._group.receives[source, self.rank, tag].append(request)
        return request

    def check_all_present(self, action: str) -> None:
        """Another rank that has returned is not there any more, one that has raised has failed."""
        with self._group.changed:
            self._group.check_failures(self.rank)
            if self._group.ended:
                ended = min(self._group.ended)
                raise CommunicationError(
                    f"rank {self.rank} of {self.size}: {action}: rank {ended} has ended, while this rank waits for it"
                )

    def abort(self, code: int) -> NoReturn:
        """End this rank with SystemExit and the others with CommunicationError."""
        raise SystemExit(code)

    def close(self) -> None:
        """From now on, whoever waits for this rank is told that it has ended."""
        self._group.end(self.rank, None)


def run_threads(
    size: int, function: Callable[[Communicator], Result], node_of_rank: Sequence[int] | None = None
) -> list[Result]:
    """Call `function(communicator)` as ranks 0 .. size-1, each in its own thread, and return what they returned.

    If a rank raises, the others are woken by CommunicationError and the first rank's own error is raised here.
    By default all ranks are on one node.
    """
    nodes = [0] * size if node_of_rank is None else node_of_rank
    assert len(nodes) == size, "node_of_rank names a node for every rank"
    group = _Group(size)
    results: dict[int, Result] = {}

    def run(rank: int) -> None:
        failure: BaseException | None = None
        try:
            results[rank] = function(ThreadCommunicator(group, rank, nodes))
        except BaseException as error:  # raised again below, in the thread of the caller
            failure = error
        group.end(rank, failure)

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if group.failures:
        raise group.failures[0][1]
    return [results[rank] for rank in range(size)]
