"""How batches are prepared, beside what the net's description says: what the command line can set."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BAD_RECORD_MODES", "BadRecordMode", "DataOptions", "default_worker_count", "workers_beside_computing"]

BadRecordMode = Literal["stop", "skip"]
BAD_RECORD_MODES: tuple[BadRecordMode, ...] = ("stop", "skip")

_MOST_WORKERS = 16


def default_worker_count(ranks_on_node: int = 1) -> int:
    """Return how many threads read ahead where nothing else is said: one less than the cores this rank may use, at least 1
    and at most 16.

    The cores are those that the process is bound to. Where it is bound to none (it may use all that the system has),
    ``ranks_on_node`` ranks share them.
    """
    cores = len(os.sched_getaffinity(0))
    if cores == os.cpu_count():
        cores //= ranks_on_node
    return workers_beside_computing(cores)


def workers_beside_computing(cpu_count: int) -> int:
    """Return how many threads read ahead in a rank that has so many CPUs: one less, at least 1 and at most 16."""
    return max(1, min(cpu_count - 1, _MOST_WORKERS))


@dataclass(frozen=True)
class DataOptions:
    """What layers that read ahead are told."""

    worker_count: int = field(default_factory=default_worker_count)
    """Threads that decode and transform, for each such layer. What they make of a record does not depend on it."""
    on_bad_record: BadRecordMode = "stop"
    """A record that cannot be used is an error, or another record takes its place (:class:`paratrain.data.BadRecords`)."""
    time_limit_s: float = 120.0
    """Where one record is being read for so long, and its batch is waited for, that is an error."""
