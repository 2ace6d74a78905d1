"""The processes of mpirun above the ranks of a host: noticed when they die, ended when they cannot end by themselves."""

from __future__ import annotations

import os
import signal
import time

from paratrain.watching.death import parent_of, program_of
from paratrain.watching.processes import is_gone, kill, open_process

__all__ = ["PROGRAMS", "Launchers"]

PROGRAMS = frozenset(
    ("hydra_pmi_proxy", "mpiexec.hydra", "mpiexec", "mpirun", "orted", "orterun", "prte", "prted", "prterun")
)
_PAUSE_S = 0.05
# For a launcher to end by itself, then after SIGTERM.
_ALONE_S, _ASKED_S = 4.0, 2.0


class Launchers:
    """Those that have been found, each with its descriptor."""

    def __init__(self) -> None:
        self._found: dict[int, int] = {}

    def add_above(self, process: int) -> None:
        """Take in the launchers from which a rank descends, as far as they are on this host."""
        above = parent_of(process)
        while above is not None and program_of(above) in PROGRAMS:
            if above not in self._found:
                descriptor = open_process(above)
                if descriptor is None:
                    return
                self._found[above] = descriptor
            above = parent_of(above)

    def take_ended(self) -> list[int]:
        """Those that have ended since this was asked last."""
        ended = [process for process, descriptor in self._found.items() if is_gone(descriptor)]
        for process in ended:
            os.close(self._found.pop(process))
        return ended

    def end(self) -> None:
        """A launcher may wait for ever for a host that is lost: end it when it has had the time to end by itself."""
        for number, wait_s in ((signal.SIGTERM, _ALONE_S), (signal.SIGKILL, _ASKED_S)):
            until = time.monotonic() + wait_s
            while time.monotonic() < until and not all(map(is_gone, self._found.values())):
                time.sleep(_PAUSE_S)
            for process, descriptor in self._found.items():
                if not is_gone(descriptor):
                    kill(process, descriptor, number)
