"""The ranks of a host before they know each other: what no launcher notices, and what nobody watches yet.

A rank that leaves by itself before MPI is there is overlooked by launchers, and the others wait for it inside MPI for ever; so
they do for one that is stopped. Whoever looks needs the rights to read /proc, and no answer of any rank.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paratrain.watching.death import is_stopped, parent_of, program_of, state_of
from paratrain.watching.launchers import PROGRAMS

__all__ = ["Beginning", "Started", "find_ranks"]

# What launchers tell a rank: its number, how many there are, and how many on its host.
_VARIABLES = (
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)
# Ranks that find a mistake end within a few seconds of each other; nothing but a mistake ends any here.
_GONE_S = 5.0
_STOPPED_S = 20.0
# A launcher starts one rank after the other: so much longer for each of them, until those that were never seen are gone.
_START_S = 0.02


@dataclass(frozen=True)
class Started:
    """The ranks of this host that run, with their processes."""

    processes: Mapping[int, int]
    size: int = 0
    """How many there are on all hosts."""
    is_one_host: bool = False


def find_ranks(processes: Iterable[int], folder: Path = Path("/proc")) -> Started:
    """Those of the processes that a launcher has started as ranks, and that have not ended."""
    found: dict[int, int] = {}
    size = local_size = 0
    for process in processes:
        parent = parent_of(process, folder)
        if parent is None or program_of(parent, folder) not in PROGRAMS or state_of(process, folder) in ("", "Z", "X"):
            continue
        told = _environment(process, folder)
        for names in _VARIABLES:
            if all(told.get(name, "").isdigit() for name in names):
                rank, size, local_size = (int(told[name]) for name in names)
                found[rank] = process
                break
    return Started(found, size, is_one_host=0 < size == local_size)


@dataclass
class Beginning:
    """What has been seen of the ranks of a host so far, on a clock in seconds.

    ``late_s`` is for those who speak where nobody else has: so much longer do they wait.
    """

    late_s: float = 0.0
    folder: Path = Path("/proc")
    _seen: dict[int, int] = field(default_factory=dict)
    _gone_at: dict[int, float] = field(default_factory=dict)
    _stopped_at: dict[int, float] = field(default_factory=dict)

    def look(self, started: Started, now: float, *, are_connected: bool = False) -> str | None:
        """Take in which ranks run now; return why they have to be ended, None where nothing is wrong.

        Once ``are_connected``, launchers do notice those that leave.
        """
        running = started.processes
        self._seen.update(running)
        if not running:
            return None
        expected = set(range(started.size)) if started.is_one_host else set(self._seen)
        missing = set() if are_connected else expected - set(running)
        self._gone_at = {rank: self._gone_at.get(rank, now) for rank in sorted(missing)}
        stopped = {rank for rank, process in running.items() if is_stopped(process, self.folder)}
        self._stopped_at = {rank: self._stopped_at.get(rank, now) for rank in sorted(stopped)}
        host = socket.gethostname()
        for rank, since in self._gone_at.items():
            start_s = 0.0 if rank in self._seen else _START_S * started.size
            if now - since > _GONE_S + start_s + self.late_s:
                process = f" (process {self._seen[rank]})" if rank in self._seen else ""
                return (
                    f"rank {rank} of {started.size} on {host}: the process has ended before the ranks were connected, "
                    f"and the others would wait for it for ever{process}"
                )
        for rank, since in self._stopped_at.items():
            if now - since > _STOPPED_S + self.late_s and len(stopped) < len(running):
                return (
                    f"rank {rank} of {started.size} on {host}, at its start: stopped by a signal "
                    f"(process {running[rank]}) for {now - since:.0f} s"
                )
        return None


def _environment(process: int, folder: Path) -> dict[str, str]:
    try:
        words = (folder / str(process) / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}  # gone, or another user's
    return dict(word.split("=", 1) for word in words if "=" in word)
