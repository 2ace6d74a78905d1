"""How a job ended, as far as `mpirun` and the ranks have told: which rank, which signal, which exit code."""

from __future__ import annotations

import contextlib
import re
import signal
from dataclasses import dataclass, field

from paratrain.launch.reports import Reports

__all__ = ["JobEnd", "read_end"]

# MPICH and Intel MPI; "rank" is told by Intel MPI and by newer MPICH.
_TERMINATED = re.compile(r"=\s+(?:RANK (?P<rank>\d+) )?PID (?P<process>\d+) RUNNING AT (?P<host>\S+)")
_MPICH_SIGNAL = re.compile(r"(?:EXIT STRING: .*\(signal |KILLED BY SIGNAL: )(?P<signal>\d+)")
_MPICH_STATUS = re.compile(r"=\s+EXIT CODE: (?P<status>\d+)")
_INTEL_CODE = re.compile(r"=\s+EXIT STATUS: (?P<code>\d+)")
_MPICH_ABORT = re.compile(r"Abort\((?P<code>\d+)\) on node \d+ \(rank (?P<rank>\d+) in comm")
# Open MPI breaks its lines anywhere between words.
_OPEN_SIGNAL = re.compile(
    r"process\s+rank\s+(?P<rank>\d+)\s+with\s+PID\s+\d+\s+on\s+node\s+(?P<host>\S+)\s+exited\s+on\s+signal\s+(?P<signal>\d+)"
)
_OPEN_ABORT = re.compile(
    r"MPI_ABORT was invoked on rank (?P<rank>\d+)[^\n]*\n(?:[^\n]*\n)?\s*(?:Errorcode:|with errorcode) (?P<code>\d+)"
)
_OPEN_CODE = re.compile(r"Process name:\s+\[[^\]]*,(?P<rank>\d+)\]\s+Exit code:\s+(?P<code>\d+)")
_OPEN_LOST = re.compile(r"(?:Node name:\s+|lost connection to (?:its )?daemon on node\s+)(?P<host>\S+)")
# ssh, and what Open MPI makes of it.
_UNREACHED = re.compile(r"ssh: (?:connect to host|Could not resolve hostname) ([^\s:]+)|Remote host:\s+(\S+)")
_ERROR = re.compile(r"^paratrain: (?P<error>.*)$", re.MULTILINE)
# The reports of ranks that are watched (paratrain.watching), which know better than mpirun what came first.
_WATCH_RANK = re.compile(r"rank (?P<rank>\d+) of \d+ on (?P<host>[^\s,:]+)")
_WATCH_SIGNAL = re.compile(r": killed by (?:SIG(?P<name>[A-Z0-9]+)|signal (?P<number>\d+))")
_WATCH_LOST = re.compile(
    r"^(?:ranks? (?P<rank>\d+)[^:]* of \d+|the ranks) on (?P<host>[^\s,:]+): the host is lost"
    r"|^the host of rank (?P<root>0) is lost"
)
_WATCH_STOPPED = ": stopped by a signal "
_WATCH_VANISHED = ": the process has vanished"
_WATCH_CODE = ": the process has ended with exit code "


@dataclass(frozen=True)
class JobEnd:
    """How one job ended."""

    code: int
    """The exit code of the launcher, as a shell gives it: 128 and the signal where a signal ended it."""
    wall_s: float = 0.0
    reports: Reports = field(default_factory=Reports)
    rank: int | None = None
    host: str | None = None
    signal: int | None = None
    """The signal that ended a rank, as far as mpirun tells."""
    rank_code: int | None = None
    """The exit code of that rank."""
    error: str | None = None
    """The first line of a rank's own message, or of the report about ranks that were watched."""
    is_silent: bool = False
    """Whether a host is lost, or a rank was stopped: nobody could say more."""

    @property
    def is_good(self) -> bool:
        """Whether all was done."""
        return self.code == 0

    @property
    def is_setup_error(self) -> bool:
        """Whether the ranks ended themselves, with a message, before training: the same would happen again.

        Ranks that cannot even find each other tell nothing but the message, and may end themselves by a signal.
        """
        has_spoken = not self.is_good and self.error is not None and self.reports.begun_at is None
        return has_spoken and not self.is_silent and (not self.is_loss or not self.reports.ranks)

    @property
    def is_loss(self) -> bool:
        """Whether a rank or a host was lost, rather than that a rank has ended itself."""
        return self.signal is not None or self.is_silent or (self.host is not None and self.rank is None)

    @property
    def place(self) -> tuple[str, object] | None:
        """Who ended it, for comparing one end with another: a host and a rank."""
        return None if self.rank is None and self.host is None else (self.host or "", self.rank)

    def describe(self) -> str:
        """Why it ended, in words."""
        who = "a rank" if self.rank is None else f"rank {self.rank}"
        where = f" on {self.host}" if self.host else ""
        if self.error is not None and self.is_loss and _WATCH_VANISHED not in self.error:
            told = ""  # the report says it all
        elif self.signal is not None:
            told = f"{who}{where} was ended by signal {self.signal} ({_name(self.signal)}), says mpirun"
        elif self.rank is None and self.host is not None:
            told = f"{self.host} is lost or cannot be reached, says mpirun"
        elif self.rank_code is not None:
            told = f"{who}{where} ended with exit code {self.rank_code}, says mpirun"
        else:
            told = ""
        said = self.error or ""
        return "; ".join(part for part in (f"exit code {self.code}", told, said) if part)


def read_end(code: int, text: str, reports: Reports, wall_s: float) -> JobEnd:
    """Return what the last output of a job, ``text``, tells about its end. ``code`` is Popen's."""
    code = 128 - code if code < 0 else code
    rank: int | None = None
    host: str | None = None
    number: int | None = None
    rank_code: int | None = None
    if (found := _OPEN_SIGNAL.search(text)) is not None:
        rank, host, number = int(found["rank"]), found["host"], int(found["signal"])
    elif (found := _OPEN_ABORT.search(text) or _MPICH_ABORT.search(text) or _OPEN_CODE.search(text)) is not None:
        rank, rank_code = int(found["rank"]), int(found["code"])
    elif (found := _TERMINATED.search(text)) is not None:
        host = found["host"]
        rank = int(found["rank"]) if found["rank"] else reports.rank_of(int(found["process"]), host)
        if (killed := _MPICH_SIGNAL.search(text)) is not None:
            number = int(killed["signal"])
        elif (ended := _INTEL_CODE.search(text)) is not None:
            rank_code = int(ended["code"])
        elif (ended := _MPICH_STATUS.search(text)) is not None:
            status = int(ended["status"])  # as waitpid gives it: a signal in the low bits, else a code above them
            number, rank_code = (status & 0x7F, None) if status & 0x7F else (None, status >> 8)
    elif (found := _OPEN_LOST.search(text)) is not None:
        host = found["host"]
    elif (found := _UNREACHED.search(text)) is not None:
        host = found[1] or found[2]
    if host is None and rank in reports.ranks:
        host = reports.ranks[rank].host
    said = _ERROR.search(text)
    error = said["error"].strip() if said else None
    is_silent = False
    if error is not None:
        if (lost := _WATCH_LOST.search(error)) is not None:
            first = lost["rank"] or lost["root"]
            rank, host, is_silent = int(first) if first else None, lost["host"], True  # the first of its ranks
            number = rank_code = None
        elif (place := _WATCH_RANK.match(error)) is not None and (
            _WATCH_STOPPED in error or _WATCH_SIGNAL.search(error) is not None
        ):
            rank, host, rank_code = int(place["rank"]), place["host"], None
            number, is_silent = _watched_signal(error), _WATCH_STOPPED in error
        elif place is not None and _WATCH_VANISHED in error:
            rank, host = int(place["rank"]), place["host"]  # how it ended, mpirun alone may know
        elif place is not None and _WATCH_CODE in error:
            # Upon this others were ended by signals, and mpirun may have named one of them.
            rank, host, number, rank_code = int(place["rank"]), place["host"], None, None
    return JobEnd(code, wall_s, reports, rank, host, number, rank_code, error, is_silent)


def _watched_signal(error: str) -> int | None:
    found = _WATCH_SIGNAL.search(error)
    if found is None:
        return None
    return int(found["number"]) if found["number"] else getattr(signal, f"SIG{found['name']}", None)


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return "unknown"
