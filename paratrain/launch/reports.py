"""What ranks tell `paratrain launch` that started them: lines on stderr, which it reads and does not show.

They are written only under `paratrain launch`, which sets a variable in the environment of the job. stderr is the one way
that every launcher provides from every machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from dataclasses import dataclass, field

from paratrain.comm.communicator import Communicator

__all__ = ["VARIABLE", "RankProcess", "Reports", "report_rank", "report_training"]

VARIABLE = "PARATRAIN_LAUNCH"
"""Holds the name of the job, which is another for every start; so the job's processes can be told from all others."""

_MARK = "paratrain-launch: "
_RANK = re.compile(r"rank (\d+) is process (\d+) on (\S+)")
_TRAINING = re.compile(r"training begins at iteration (\d+)")


@dataclass(frozen=True)
class RankProcess:
    """Where a rank runs."""

    process: int
    host: str


@dataclass
class Reports:
    """What the ranks of a job have told so far."""

    ranks: dict[int, RankProcess] = field(default_factory=dict)
    begun_at: int | None = None
    """The iteration that training began at; None while the ranks are being set up."""

    def read(self, line: str) -> str | None:
        """Take in what a line tells; return the line without it, None where nothing else stands there."""
        start = line.find(_MARK)
        if start < 0:
            return line
        told = line[start + len(_MARK) :]
        if (found := _RANK.match(told)) is not None:
            self.ranks[int(found[1])] = RankProcess(int(found[2]), found[3])
        elif (found := _TRAINING.match(told)) is not None:
            self.begun_at = int(found[1])
        else:
            return line
        rest = line[:start] + told[found.end() :]
        return rest if rest.strip() else None

    def rank_of(self, process: int, host: str | None) -> int | None:
        """The rank of a process, None where no rank has told so. The same number may be used on several hosts."""
        ranks = [
            rank
            for rank, place in self.ranks.items()
            if place.process == process and (host is None or _short(host) == _short(place.host))
        ]
        return ranks[0] if len(ranks) == 1 else None


def report_rank(communicator: Communicator) -> None:
    """Tell which process this rank is."""
    _report(f"rank {communicator.rank} is process {os.getpid()} on {socket.gethostname()}")


def report_training(iteration: int) -> None:
    """Tell that training begins: what fails from here on is no mistake in the command or its files. The root tells it."""
    _report(f"training begins at iteration {iteration}")


def _report(text: str) -> None:
    if VARIABLE in os.environ:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{_MARK}{text}\n")
            sys.stderr.flush()


def _short(host: str) -> str:
    return host.partition(".")[0]
