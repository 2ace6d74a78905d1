"""The ranks of a helper's own host: looked at, asked, and ended."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from paratrain.watching.board import BoardReader
from paratrain.watching.death import describe_end, exit_status, is_stopped
from paratrain.watching.processes import is_gone, kill, open_process
from paratrain.watching.settings import EXIT_WATCH
from paratrain.watching.state import Death, RankState
from paratrain.watching.wire import Wire

__all__ = ["LocalRank", "accept_rank"]

_CRASH_BYTES = 64 * 1024
_HELLO_S = 5.0


class LocalRank:
    """A rank that has introduced itself."""

    def __init__(self, wire: Wire, hello: dict[str, Any], process: int, host: str, memory: tuple[int, int]) -> None:
        self.wire = wire
        self.rank = int(hello["rank"])
        self.process = process
        self.descriptor = open_process(process)
        self.is_gone = False
        self._host = host
        self._board = BoardReader(memory[0])
        os.close(memory[0])
        self._crash = memory[1]
        self._stopped_at: float | None = None
        self._status: int | None = None

    def state(self, now: float) -> RankState:
        """Where it is."""
        if self.is_gone or not is_stopped(self.process):
            self._stopped_at = None
        elif self._stopped_at is None:
            self._stopped_at = now
        stopped_s = 0.0 if self._stopped_at is None else max(1e-3, now - self._stopped_at)
        return self._board.read(self.rank, self._host, self.process, stopped_s)

    def pass_over(self, seconds: float) -> None:
        """Nobody has looked for so long: a rank that was stopped meanwhile, as this process was, counts from now on."""
        if self._stopped_at is not None:
            self._stopped_at += seconds

    def has_ended(self) -> bool:
        """Look whether it has ended, after its connection was closed or the kernel has told so."""
        if self._status is None:
            self._status = exit_status(self.process) or None  # 0 is also that of one that lives
        if self.descriptor is not None and is_gone(self.descriptor):
            self.is_gone = True
        elif self._status is not None or self.descriptor is None:  # it closes its files, then it is gone
            self.is_gone = not self.wire.is_open
        return self.is_gone

    def death(self, memory_ran_out: bool) -> Death | None:
        """How it has ended; None where it had said that it would."""
        if self._board.is_done:
            return None
        if self._status is None:
            self._status = exit_status(self.process)
        cause, is_killed = describe_end(self._status, memory_ran_out=memory_ran_out)
        state = self._board.read(self.rank, self._host, self.process)
        return Death(state, cause, self._crash_text(), self._board.is_explained, is_killed)

    def end(self) -> None:
        """Tell it to end; one that is stopped cannot hear."""
        self.wire.send({"kind": "end", "code": EXIT_WATCH})
        if is_stopped(self.process):
            self.kill()

    def kill(self) -> None:
        """End it."""
        if not self.is_gone:
            kill(self.process, self.descriptor)

    def close(self) -> None:
        """Forget it, now that it is gone."""
        self.wire.close()
        for descriptor in (self.descriptor, self._crash):
            if descriptor is not None:
                os.close(descriptor)
        self.descriptor = None

    def _crash_text(self) -> str:
        """What Python's faulthandler has written, but for what says nothing about the crash."""
        text = os.pread(self._crash, _CRASH_BYTES, 0).decode(errors="replace")
        paragraphs = [part.strip() for part in text.split("\n\n")]
        told = (part for part in paragraphs if part and "in _listen" not in part and not part.startswith("Extension"))
        return "\n".join(told)


def accept_rank(listener: socket.socket, token: str, host: str) -> tuple[LocalRank, dict[str, Any]] | None:
    """Take in a rank that connects, with its hello; None for anybody else."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    memory: list[int] = []
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        process, user, _ = struct.unpack("3i", credentials)
        # Somebody else could make this wait; and what cannot be seen from here (0: another namespace) cannot be watched.
        if user != os.geteuid() or process <= 0:
            raise ValueError("no rank of this job")
        connection.settimeout(_HELLO_S)
        # The hello and its descriptors come in one piece.
        wire_text, memory, _, _ = socket.recv_fds(connection, 64 * 1024, 2)
        hello = Wire.parse(wire_text)
        if hello.get("token") == token and len(memory) == 2:
            return LocalRank(Wire(connection), hello, process, host, (memory[0], memory[1])), hello
    except (OSError, ValueError):
        pass
    for descriptor in memory:
        os.close(descriptor)
    connection.close()
    return None
