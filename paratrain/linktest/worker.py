"""The child process of the test of GPU links: it drives one GPU and does what it is told through a pipe.

``python -m paratrain.linktest.worker RUNTIME FD`` reads commands from the file descriptor FD, each a name of a `Worker`
method with arguments, and answers each with its value or the text of its error. It ends when the other end is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from paratrain.errors import ParatrainError
from paratrain.linktest.pattern import CANARY, GUARD_BYTES, difference, known_bytes
from paratrain.linktest.runtime import Runtime, open_runtime

__all__ = ["Worker", "main"]

_PR_SET_PDEATHSIG = 1


@dataclass
class _Link:
    """This end of a link: addresses of blocks, and of the host memory that both ends share; 0 for what is not used."""

    byte_count: int
    inbox: int
    """Where the peer writes; followed by `GUARD_BYTES` bytes that nobody should write."""
    outbox: int
    sent: int = 0
    """The event after the newest copy from here."""
    peer_inbox: int = 0
    peer_sent: int = 0
    sending: int = 0
    receiving: int = 0
    pinned: list[int] = field(default_factory=list)
    memory: list[object] = field(default_factory=list)
    """What keeps the host memory mapped."""


class Worker:
    """One GPU of the test, and its ends of links to the members with the numbers `peer`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._links: dict[int, _Link] = {}
        self._number = 0

    def select(self, number: int, bus_id: str, index: int) -> None:
        """Take the GPU, as the member `number`."""
        self._number = number
        self._runtime.select(bus_id, index)

    def open_link(self, peer: int, byte_count: int) -> None:
        """Make this end of a link, for messages of up to so many bytes."""
        inbox = self._runtime.allocate(byte_count + GUARD_BYTES)
        self._links[peer] = _Link(byte_count, inbox, self._runtime.allocate(byte_count))

    def offer(self, peer: int) -> tuple[bytes, bytes]:
        """The handles of the block that the peer may write and of the event by which this end says that it has written."""
        link = self._links[peer]
        link.sent = self._runtime.new_event()
        return self._runtime.export_block(link.inbox), self._runtime.export_event(link.sent)

    def join(self, peer: int, block: bytes, event: bytes) -> None:
        """Open the peer's block and event: from here on the two GPUs are peers for CUDA."""
        link = self._links[peer]
        link.peer_inbox = self._runtime.open_block(block)
        link.peer_sent = self._runtime.open_event(event)

    def stage(self, peer: int, fd: int, sending_offset: int, receiving_offset: int) -> None:
        """Pin two pieces of the host memory in the file `fd`, one for each way, which the peer pins as well. Copies are right,
        and slower, where the system pins none: that says nothing of the link.
        """
        link = self._links[peer]
        addresses = []
        for offset in (sending_offset, receiving_offset):
            memory = mmap.mmap(fd, link.byte_count, offset=offset)
            array = np.frombuffer(memory, np.uint8)
            addresses.append(array.ctypes.data)
            with contextlib.suppress(Exception):  # of CUDA's, which this module does not know
                self._runtime.pin(addresses[-1], link.byte_count)
                link.pinned.append(addresses[-1])
            link.memory += [memory, array]
        link.sending, link.receiving = addresses

    def prepare(self, peer: int, repeat: int, byte_count: int) -> None:
        """Fill the inbox with canaries and the outbox with the message to the peer."""
        link = self._links[peer]
        self._runtime.fill(link.inbox, CANARY, link.byte_count + GUARD_BYTES)
        message = known_bytes(self._number, peer, repeat, byte_count)
        self._runtime.copy(link.outbox, message.ctypes.data, byte_count)
        self._runtime.synchronize()

    def send(self, peers: list[int], byte_count: int) -> None:
        """Write the message into the inboxes of these peers, all at once, and wait until it is there."""
        for peer in peers:
            link = self._links[peer]
            self._runtime.copy(link.peer_inbox, link.outbox, byte_count)
            self._runtime.record(link.sent)
        self._runtime.synchronize()

    def send_staged(self, peers: list[int], byte_count: int) -> None:
        """Write the message into the host memory that is shared with these peers."""
        for peer in peers:
            self._runtime.copy(self._links[peer].sending, self._links[peer].outbox, byte_count)
        self._runtime.synchronize()

    def receive_staged(self, peers: list[int], byte_count: int) -> None:
        """Take the messages of these peers out of the shared host memory into the inboxes."""
        for peer in peers:
            self._runtime.copy(self._links[peer].inbox, self._links[peer].receiving, byte_count)
        self._runtime.synchronize()

    def compare(self, peer: int, repeat: int, byte_count: int, direct: bool) -> str:
        """Read the inbox back through the host; how it differs from the peer's message in words, empty if it does not."""
        link = self._links[peer]
        arrived = np.zeros(byte_count + GUARD_BYTES, np.uint8)
        if direct:
            self._runtime.wait_for(link.peer_sent)
        self._runtime.copy(arrived.ctypes.data, link.inbox, arrived.size)
        self._runtime.synchronize()
        return difference(arrived, known_bytes(peer, self._number, repeat, byte_count))

    def time_send(self, peer: int, byte_count: int, repeat_count: int) -> float:
        """The median of the seconds that a direct copy takes until it is known to be there."""
        return _median_s(lambda: self.send([peer], byte_count), repeat_count)

    def time_staged(self, peer: int, byte_count: int, repeat_count: int, sends: bool) -> float:
        """The median of the seconds for this end's half of the way through host memory."""
        half = self.send_staged if sends else self.receive_staged
        return _median_s(lambda: half([peer], byte_count), repeat_count)

    def leave(self) -> None:
        """Close the peers' blocks; an owner must not free one before that."""
        for link in self._links.values():
            if link.peer_inbox:
                self._runtime.close_block(link.peer_inbox)
                link.peer_inbox = 0

    def free(self) -> None:
        """Give all memory back."""
        for link in self._links.values():
            for address in link.pinned:
                self._runtime.unpin(address)
            self._runtime.free(link.inbox)
            self._runtime.free(link.outbox)
        self._links.clear()


def _median_s(work: Callable[[], None], repeat_count: int) -> float:
    times = []
    for _ in range(repeat_count + 1):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])  # the first one warms up


def _die_with_parent() -> None:
    """Let Linux kill this process when its parent ends, however that happens: a hanging copy would keep it for ever."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(runtime_name: str, fd: int) -> None:
    """Serve commands until the pipe is closed."""
    _die_with_parent()
    pipe = Connection(fd)
    worker: Worker | None = None
    while True:
        try:
            name, arguments, options = pipe.recv()
        except EOFError:
            return
        try:
            worker = worker or Worker(open_runtime(runtime_name))
            pipe.send((True, getattr(worker, name)(*arguments, **options)))
        except ParatrainError as error:
            pipe.send((False, str(error)))
        except Exception as error:  # whatever CUDA says; the other end decides what follows from it
            pipe.send((False, f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
