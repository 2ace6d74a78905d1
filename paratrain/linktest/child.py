"""A child process with a time limit on each answer, which is killed with its own children when it does not keep it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from paratrain.errors import ParatrainError

__all__ = ["Child", "ChildError", "ChildTimeoutError", "kill_tree", "module_command"]

_KILL_LIMIT_S = 5.0
_SHARED = "/dev/shm/"  # noqa: S108, looked at, not written


class ChildError(ParatrainError):
    """The child says that a command failed, or has ended."""


class ChildTimeoutError(ParatrainError):
    """No answer came in time."""


def module_command(module: str) -> list[str]:
    """``python -m MODULE`` for a child that finds paratrain where this process has found it, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    run = f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"import runpy, sys; sys.path.append({root!r}); {run}"]


class Child:
    """``python -m MODULE ARGUMENT FD``: a process that answers commands which come through a pipe.

    `fds` stay open in it under their numbers; `environment` is in place of this process's.
    """

    def __init__(
        self, module: str, argument: str, fds: Sequence[int] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*module_command(module), argument, str(theirs.fileno())],
                pass_fds=[theirs.fileno(), *fds],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # an interrupt from the terminal is for the parent, which kills the child
            )
        self._pipe = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def start(self, command: str, *arguments: Any, **options: Any) -> None:
        """Give a command; `finish` takes the answer. ChildError if the process has ended."""
        try:
            self._pipe.send((command, arguments, options))
        except OSError as error:
            raise ChildError(self._how_it_ended()) from error

    def finish(self, deadline: float) -> Any:
        """The answer to the oldest command. ChildTimeoutError after `deadline` (of time.monotonic), ChildError for a failure."""
        try:
            if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                raise ChildTimeoutError("no answer in time")
            is_done, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ChildError(self._how_it_ended()) from error
        if not is_done:
            raise ChildError(str(value))
        return value

    def end(self) -> bool:
        """End the process, politely if it listens; whether it is gone. A process that hangs in a driver may stay."""
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        return self.kill()

    def kill(self) -> bool:
        """Kill the process and its children; whether it is gone."""
        self._pipe.close()
        return kill_tree(self._process)

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "the process of the test has closed its pipe"
        if code >= 0:
            return f"the process of the test ended with code {code}"
        return f"the process of the test was ended by {signal.Signals(-code).name}"


def kill_tree(process: subprocess.Popen[Any]) -> bool:
    """Kill a process and everything it has started, and wait a few seconds for it; whether it is gone.

    Files in shared memory that only these processes used are removed: killed MPI ranks leave theirs behind.
    """
    below = _descendants(process.pid) if process.poll() is None else []
    files = {file for pid in (process.pid, *below) for file in _shared_files(pid)}
    for pid in below:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    try:
        process.wait(_KILL_LIMIT_S)
    except subprocess.TimeoutExpired:
        return False
    deadline = time.monotonic() + _KILL_LIMIT_S
    while any(_is_alive(pid) for pid in below):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    for file in files.difference(*(_shared_files(pid) for pid in _parents())) if files else ():
        with contextlib.suppress(OSError):
            file.unlink()
    return True


def _shared_files(pid: int) -> set[Path]:
    """The files in /dev/shm that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    paths = (line.split(maxsplit=5)[-1] for line in lines)
    return {Path(path) for path in paths if path.startswith(_SHARED) and not path.endswith(" (deleted)")}


def _descendants(pid: int) -> list[int]:
    """The processes below `pid`, each stopped so that it starts no more of them, nearest first; [] where /proc is missing."""
    found: list[int] = []
    waiting = [pid]
    for parent in waiting:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(parent, signal.SIGSTOP)
        children = [child for child, above in _parents().items() if above == parent]
        found += children
        waiting += children
    return found


def _parents() -> dict[int, int]:
    """For each process its parent."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name, in parentheses, may hold anything.
            parents[int(entry.name)] = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    return parents


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet fetched by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False
