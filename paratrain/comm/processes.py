"""Ranks as processes of one machine that a script has started itself, with ``multiprocessing``: no mpirun, no MPI.

They meet in a folder that the script makes before it starts them. Each listens there at a socket of its own, and calls those
of lower rank.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import NoReturn

from paratrain.comm.communicator import Array, Communicator, Request, as_bytes
from paratrain.errors import CommunicationError

__all__ = ["ProcessCommunicator", "join_processes", "make_meeting_place"]

_HEADER = struct.Struct("<iq")  # tag, bytes
_HELLO = struct.Struct("<ii")  # rank, size
_LONGEST_PATH = 80  # of the folder: the system takes about 107 bytes for a socket in it
_POLL_S = 0.02


def make_meeting_place() -> str:
    """Make the folder in which processes will meet, open to this user alone. Whoever makes it removes it."""
    folder = tempfile.mkdtemp(prefix="paratrain-")
    if len(folder) > _LONGEST_PATH:
        Path(folder).rmdir()
        folder = tempfile.mkdtemp(prefix="paratrain-", dir="/tmp")
    return folder


def join_processes(folder: str, rank: int, size: int, timeout_s: float = 120.0) -> ProcessCommunicator:
    """Return the place of this process among ``size`` of them, which all call this with the same folder within ``timeout_s``.

    Raises CommunicationError where the folder is gone, a rank does not come, or two processes are the same rank.
    """
    place = f"rank {rank} of {size}"
    if not Path(folder).is_dir():
        raise CommunicationError(f"{place}: the folder in which the processes meet is gone: {folder}")
    deadline = time.monotonic() + timeout_s
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    own = Path(folder) / str(rank)
    peers: dict[int, socket.socket] = {}
    try:
        listener.bind(str(own))
    except OSError:
        listener.close()
        raise CommunicationError(
            f"{place}: another process is rank {rank} already; every process needs a number of its own"
        ) from None
    try:
        listener.listen(size)
        for peer in range(rank):
            peers[peer] = _call(Path(folder) / str(peer), peer, place, deadline)
            peers[peer].sendall(_HELLO.pack(rank, size))
        while len(peers) < size - 1:
            caller, connection = _answer(listener, place, size, set(range(rank + 1, size)) - set(peers), deadline)
            peers[caller] = connection
    except BaseException:
        for connection in peers.values():
            connection.close()
        raise
    finally:
        listener.close()
        own.unlink(missing_ok=True)
    return ProcessCommunicator(rank, size, peers)


def _call(path: Path, peer: int, place: str, deadline: float) -> socket.socket:
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise _missing(place, [peer]) from None
            time.sleep(_POLL_S)
        else:
            return connection


def _answer(
    listener: socket.socket, place: str, size: int, missing: set[int], deadline: float
) -> tuple[int, socket.socket]:
    listener.settimeout(max(0.001, deadline - time.monotonic()))
    try:
        connection, _ = listener.accept()
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        hello = _receive(connection, _HELLO.size)
        connection.settimeout(None)
    except (OSError, EOFError):
        raise _missing(place, sorted(missing)) from None
    caller, its_size = _HELLO.unpack(hello)
    if its_size != size or caller not in missing:
        raise CommunicationError(
            f"{place}: a process came as rank {caller} of {its_size}; expected rank "
            f"{' or '.join(map(str, sorted(missing)))} of {size}"
        )
    return caller, connection


def _missing(place: str, ranks: list[int]) -> CommunicationError:
    names = ", ".join(map(str, ranks))
    return CommunicationError(f"{place}: waited for rank {names}, which has not come; is its process running?")


def _receive(connection: socket.socket, count: int) -> bytearray:
    """Read just so many bytes. Raises EOFError where the other side has closed."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = connection.recv_into(view)
        if got == 0:
            raise EOFError
        view = view[got:]
    return data


class _Inbox:
    """What the reading threads leave for the rank: whole messages, and who is gone."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.messages: dict[tuple[int, int], deque[bytearray]] = defaultdict(deque)  # by source and tag
        self.wanted: dict[tuple[int, int], deque[_Receive]] = defaultdict(deque)
        self.gone: set[int] = set()

    def put(self, source: int, tag: int, message: bytearray) -> None:
        with self.changed:
            waiting = self.wanted[source, tag]
            if waiting:
                waiting.popleft().message = message
            else:
                self.messages[source, tag].append(message)
            self.changed.notify_all()

    def leave(self, source: int) -> None:
        with self.changed:
            self.gone.add(source)
            self.changed.notify_all()


class _Sent(Request):
    """A message that is with the other side."""

    def wait(self) -> None:
        pass

    def test(self) -> bool:
        return True


class _Receive(Request):
    def __init__(self, inbox: _Inbox, array: Array, source: int, place: str) -> None:
        self._inbox, self._array, self._source, self._place = inbox, array, source, place
        self.message: bytearray | None = None
        self._is_done = False

    def wait(self) -> None:
        with self._inbox.changed:
            self._inbox.changed.wait_for(lambda: self.message is not None or self._source in self._inbox.gone)
        if not self.test():
            raise CommunicationError(f"{self._place}: waits for a message from rank {self._source}, which has ended")

    def test(self) -> bool:
        message = self.message
        if self._is_done or message is None:
            return self._is_done
        wanted = as_bytes(self._array)
        if len(message) != wanted.nbytes:
            raise CommunicationError(
                f"{self._place}: expected {wanted.nbytes} bytes from rank {self._source}, which sent {len(message)}"
            )
        wanted[:] = memoryview(message)
        self._is_done = True
        return True


class ProcessCommunicator(Communicator):
    """One of several processes of a machine, each joined to each by a socket. `join_processes` makes it."""

    def __init__(self, rank: int, size: int, peers: dict[int, socket.socket]) -> None:
        super().__init__(rank, [0] * size)
        self._peers = peers
        self._inbox = _Inbox()
        for peer, connection in peers.items():
            threading.Thread(target=self._read, args=(peer, connection), daemon=True).start()

    def isend(self, array: Array, destination: int, tag: int = 0) -> Request:
        """Write the message at once: a thread of the other side reads all that comes, whoever asks for it and when."""
        self._check_peer(destination)
        message = as_bytes(array)
        connection = self._peers[destination]
        try:
            connection.sendall(_HEADER.pack(tag, message.nbytes))
            connection.sendall(message.data)
        except OSError:
            raise CommunicationError(f"{self._place}: sends to rank {destination}, which has ended") from None
        return _Sent()

    def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
        """Take the oldest message of the source that nobody has asked for, or the next that comes."""
        self._check_peer(source)
        request = _Receive(self._inbox, array, source, self._place)
        with self._inbox.changed:
            waiting = self._inbox.messages[source, tag]
            if waiting:
                request.message = waiting.popleft()
            else:
                self._inbox.wanted[source, tag].append(request)
        return request

    def check_all_present(self, action: str) -> None:
        """A rank that has closed its sockets, or whose process has ended, is not there any more."""
        with self._inbox.changed:
            if self._inbox.gone:
                raise CommunicationError(
                    f"{self._place}: {action}: rank {min(self._inbox.gone)} has ended, while this rank waits for it"
                )

    def abort(self, code: int) -> NoReturn:
        """End this process, whose sockets close: the others are told when they next wait for it."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def close(self) -> None:
        """Close the sockets; what has been sent arrives."""
        for connection in self._peers.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            connection.close()

    @property
    def _place(self) -> str:
        return f"rank {self.rank} of {self.size}"

    def _read(self, peer: int, connection: socket.socket) -> None:
        try:
            while True:
                tag, count = _HEADER.unpack(_receive(connection, _HEADER.size))
                self._inbox.put(peer, tag, _receive(connection, count))
        except (OSError, EOFError):
            self._inbox.leave(peer)
