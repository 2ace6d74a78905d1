"""Whether a job that failed is started again, and with how many ranks; and which snapshots it has written.

`--restarts N` is the number of restarts in a row that bring nothing: a new good snapshot sets the count back to 0. No restart
follows where it would be in vain: after an error before training, and where a rank reports the same error twice with no
new snapshot between. Fewer ranks come in where signals, or the loss of a machine, end the same rank or host twice so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paratrain.errors import SnapshotError
from paratrain.launch.hosts import Host, slot_count
from paratrain.launch.job_end import JobEnd
from paratrain.snapshot import read_training_state
from paratrain.snapshot.names import list_snapshots

__all__ = ["Decision", "Ranks", "RestartRule", "SnapshotWatch"]


@dataclass(frozen=True)
class Ranks:
    """How many ranks, and where; no hosts for this machine alone."""

    count: int
    hosts: tuple[Host, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What follows the end of a job: the ranks of the next, or None, and why."""

    ranks: Ranks | None
    reason: str
    failures: int = 0
    """Failures in a row without a new snapshot, this one included."""


class RestartRule:
    """Remembers the failures so far. ``share`` says whether that many ranks can keep the effective batch: None, or why not."""

    def __init__(self, limit: int, ranks: Ranks, least_count: int, share: Callable[[int], str | None]) -> None:
        self._limit, self._ranks, self._least_count, self._share = limit, ranks, least_count, share
        self._failures = 0
        self._last: JobEnd | None = None
        self._has_started = False

    def decide(self, end: JobEnd, *, has_progress: bool) -> Decision:
        """Take in how a job failed, and whether it wrote a new good snapshot."""
        self._has_started = self._has_started or bool(end.reports.ranks)
        before, self._last = (None if has_progress else self._last), end
        self._failures = 1 if has_progress else self._failures + 1
        if end.is_setup_error:
            return self._stop("it ended with an error before training, which a restart does not mend")
        if not self._has_started and end.signal is None and end.code < 128 and not end.is_silent:
            return self._stop("mpirun has not started the ranks, which a restart does not mend")
        if self._limit == 0:
            return self._stop("no restart was asked for (--restarts)")
        if self._failures > self._limit:
            return self._stop(
                f"{self._failures} failures in a row without a new snapshot between are more than --restarts {self._limit} allows"
            )
        if before is not None and end.error is not None and not end.is_loss and before.error == end.error:
            return self._stop("the same error has come twice, with no new snapshot between: it would come again")
        if before is not None and end.place is not None and end.is_loss and before.is_loss:
            host = self._host_of(end)
            if len(self._ranks.hosts) > 1 and host is not None and host == self._host_of(before):
                return self._without_host(host)
            if before.place == end.place and len(self._ranks.hosts) < 2:
                return self._fewer(
                    self._ranks.hosts, self._ranks.count - 1, f"rank {end.rank} has failed twice in a row"
                )
        return Decision(self._ranks, "", self._failures)

    def _host_of(self, end: JobEnd) -> Host | None:
        """Which of the hosts that were given it was: by its name, or else by its rank, since they are filled in their order."""
        named = [host for host in self._ranks.hosts if end.host is not None and _is_same(host.name, end.host)]
        if len(named) == 1:
            return named[0]
        first = 0
        for host in self._ranks.hosts:
            if end.rank is not None and first <= end.rank < first + host.slots:
                return host
            first += host.slots
        return None

    def _without_host(self, lost: Host) -> Decision:
        kept = tuple(host for host in self._ranks.hosts if host != lost)
        most = min(self._ranks.count, slot_count(kept))
        return self._fewer(kept, most, f"{lost.name} has failed twice in a row and is left out")

    def _fewer(self, hosts: tuple[Host, ...], most: int, reason: str) -> Decision:
        if most < self._least_count:
            if hosts == self._ranks.hosts:
                return Decision(self._ranks, "", self._failures)  # --min-ranks holds the number: try again
            return self._stop(f"{reason}, and fewer than --min-ranks {self._least_count} would be left")
        problem: str | None = None
        for count in range(most, self._least_count - 1, -1):
            problem = self._share(count)
            if problem is None:
                self._ranks = Ranks(count, hosts)
                return Decision(self._ranks, reason, self._failures)
        return self._stop(f"{reason}, and fewer ranks cannot keep the effective batch: {problem}")

    def _stop(self, reason: str) -> Decision:
        return Decision(None, reason, self._failures)


class SnapshotWatch:
    """The snapshots of ``prefix`` that are written from now on. Older ones, of earlier runs, are none of this run's."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._before = {path: _stamp(path) for path in self._training_states()}
        self._newest = -1

    def newest(self) -> tuple[Path, int] | None:
        """The solver state and the iteration of the newest good one, None where there is none."""
        for path in self._training_states():
            if self._before.get(path) == _stamp(path):
                continue
            try:
                state = read_training_state(path)
                state.check_files(path)
            except SnapshotError:
                continue  # the ranks cut it short
            names = [name for name in state.files if ".solverstate" in name]
            if names:
                return path.parent / names[0], state.iteration
        return None

    def has_progress(self) -> bool:
        """Whether there is a newer good one than at the last call."""
        found = self.newest()
        before, self._newest = self._newest, self._newest if found is None else max(self._newest, found[1])
        return self._newest > before

    def _training_states(self) -> Sequence[Path]:
        return [
            path for files in list_snapshots(self._prefix).values() for path in files if path.suffix == ".trainstate"
        ]


def _is_same(host: str, other: str) -> bool:
    return host.partition(".")[0] == other.partition(".")[0]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino
