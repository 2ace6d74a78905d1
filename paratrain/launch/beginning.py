"""Looking at the ranks of a job on this machine until they are watched: a rank that is gone or stopped ends the job."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

from paratrain.launch.reports import Reports
from paratrain.watching.beginning import Beginning, find_ranks

__all__ = ["BeginningLook"]

_LOOK_S = 1.0


class BeginningLook:
    """Looks once a second. ``processes`` are those of the job, as many as there are at the moment."""

    def __init__(self, processes: Callable[[], Sequence[int]]) -> None:
        self._processes = processes
        self._beginning = Beginning()
        self._next_s = 0.0
        self._is_over = False

    def problem(self, reports: Reports) -> str | None:
        """Say what is wrong, once, and kill the ranks of this machine, upon which mpirun ends the others; None if all is well."""
        now = time.monotonic()
        if self._is_over or reports.begun_at is not None or now < self._next_s:
            return None
        self._next_s = now + _LOOK_S
        started = find_ranks(self._processes())
        found = self._beginning.look(started, now, are_connected=bool(reports.ranks))
        if found is not None:
            self._is_over = True
            for process in started.processes.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        return found
