"""By how much the clocks of the ranks differ, found by messages that go to and fro (Cristian, 1989).

Rank 0 sends a message, the other rank answers with the time on its clock, and rank 0 takes that for the time in the middle
between sending and receiving: it is wrong by no more than half of the time between them. The quickest of some rounds counts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paratrain.comm import Communicator
from paratrain.data_parallel.timeline.recorder import Clock

__all__ = ["Alignment", "ClockReading", "name_clock", "read_clocks"]

_ROUNDS = 30


@dataclass(frozen=True)
class ClockReading:
    """At ``at_ns`` of its own clock, a rank's clock was ``offset_ns`` ahead of that of rank 0, give or take ``error_ns``."""

    at_ns: int = 0
    offset_ns: int = 0
    error_ns: int = 0


class Alignment:
    """Turns times of a rank's clock into those of rank 0's, by readings from the begin and the end: what the clocks drift
    apart in between is taken to be even.
    """

    def __init__(self, begin: ClockReading, end: ClockReading) -> None:
        self.error_ns = max(begin.error_ns, end.error_ns)
        self._begin = begin
        span = end.at_ns - begin.at_ns
        self._drift = (end.offset_ns - begin.offset_ns) / span if span > 0 else 0.0

    def __call__(self, time_ns: int) -> int:
        """The time of rank 0's clock."""
        begin = self._begin
        return time_ns - begin.offset_ns - round(self._drift * (time_ns - begin.at_ns))


def name_clock() -> str:
    """A text that is the same for processes that read the same clock: those of one boot of a kernel, in one time namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return f"process {os.getpid()} of {os.uname().nodename}"


def read_clocks(communicator: Communicator, clock: Clock, name: str) -> list[ClockReading]:
    """On rank 0 a reading of each rank's clock, elsewhere nothing of use. All ranks call it.

    Clocks of the same ``name`` as rank 0's are the same clock, and are not asked.
    """
    names: Sequence[str] = communicator.allgather_objects(name)
    readings = [ClockReading()] * communicator.size
    for rank, other in enumerate(names):
        if other == names[0]:
            continue
        if communicator.rank == 0:
            readings[rank] = _ask(communicator, clock, rank)
        elif communicator.rank == rank:
            _answer(communicator, clock)
    return readings


def _ask(communicator: Communicator, clock: Clock, rank: int) -> ClockReading:
    question, answer = np.zeros(1, np.int64), np.zeros(1, np.int64)
    best: ClockReading | None = None
    for _ in range(_ROUNDS):
        sent = clock()
        communicator.send(question, rank)
        communicator.receive(answer, rank)
        received = clock()
        error = (received - sent + 1) // 2
        if best is None or error < best.error_ns:
            theirs = int(answer[0])
            best = ClockReading(theirs, theirs - (sent + received) // 2, error)
    assert best is not None
    return best


def _answer(communicator: Communicator, clock: Clock) -> None:
    question, answer = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for _ in range(_ROUNDS):
        communicator.receive(question, 0)
        answer[0] = clock()
        communicator.send(answer, 0)
