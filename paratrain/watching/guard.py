"""A guard beside ranks that begin: the process that ends them where one is gone or stopped before a helper watches them.

The first two ranks of a host start one each, before they touch MPI, so that one is there whichever rank it is that fails. It
leaves when its rank says so, or with the last rank.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

from paratrain.watching.beginning import Beginning, find_ranks
from paratrain.watching.death import parent_of, program_of
from paratrain.watching.launchers import PROGRAMS

__all__ = ["StartGuard", "main"]

_PROGRAM = "import sys; sys.path.insert(0, {folder!r}); from paratrain.watching import guard; guard.main(*sys.argv[1:])"
_CONNECTED, _DONE = b"c", b"d"
_END_S = 2.0
_LOOK_S, _LAST_LOOK_S = 1.0, 0.2
# Whoever has started mpirun and looks as well speaks first, then the first guard.
_AFTER_S, _STAGGER_S = 0.5, 1.0
# Between the report and the end of the ranks, so that launchers have passed it on.
_FORWARD_S = 0.3


class StartGuard:
    """A rank's side. Nothing is started where it is not a launcher that has started this process.

    ``late_s`` shifts when the guard speaks (see :class:`~paratrain.watching.beginning.Beginning`), for tests.
    """

    def __init__(self, local_rank: int | None, local_size: int | None, late_s: float | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        launcher = os.getppid()
        if local_rank not in (0, 1) or local_size == 1 or program_of(launcher) not in PROGRAMS:
            return
        program = _PROGRAM.format(folder=str(Path(__file__).resolve().parents[2]))
        late_s = _AFTER_S + _STAGGER_S * local_rank if late_s is None else late_s
        command = [sys.executable, "-I", "-S", "-c", program, str(launcher), str(late_s)]
        with contextlib.suppress(OSError):  # the run needs it in trouble only
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0, start_new_session=True
            )

    def connected(self) -> None:
        """The ranks know each other: from now on launchers notice those that leave."""
        self._tell(_CONNECTED)

    def close(self) -> None:
        """Ranks are watched, or nobody wants them to be. It may be called again."""
        self._tell(_DONE)
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _tell(self, word: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(word)


def main(launcher: str, late_s: str) -> None:
    """The program of a guard: look at the ranks below ``launcher`` until its own says that all is well."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # they are for the ranks
    beginning, are_connected, is_told, look_s = Beginning(late_s=float(late_s)), False, True, _LOOK_S
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while True:
            if not is_told:
                time.sleep(look_s)
            elif selector.select(look_s):
                words = os.read(0, 16)
                if _DONE in words:
                    return
                are_connected = are_connected or _CONNECTED in words
                if not words:  # its rank has ended
                    is_told, look_s = False, _LAST_LOOK_S
            started = find_ranks(_children(int(launcher)))
            if not started.processes:
                return
            problem = beginning.look(started, time.monotonic(), are_connected=are_connected)
            if problem is not None:
                with contextlib.suppress(OSError):
                    os.write(2, f"paratrain: {problem}\n".encode())
                time.sleep(_FORWARD_S)
                for process in started.processes.values():
                    with contextlib.suppress(OSError):
                        os.kill(process, signal.SIGKILL)
                return


def _children(process: int) -> list[int]:
    numbers = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [number for number in numbers if parent_of(number) == process]
