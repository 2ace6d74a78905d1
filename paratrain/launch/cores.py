"""The cores of each rank: how many threads compute, and where they run."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paratrain.comm.communicator import Communicator
from paratrain.data.options import workers_beside_computing
from paratrain.launch import options
from paratrain.threads import set_thread_count
from paratrain.topology.cores import CoreShare, divide, local_core_place
from paratrain.topology.hosts import usable_cpus
from paratrain.topology.number_ranges import format_ranges

__all__ = ["Cores", "add_cores", "log_cores", "take_cores"]

logger = logging.getLogger(__name__)

_VARIABLE = "OMP_NUM_THREADS"
_MOST_NAMED = 8


@dataclass(frozen=True)
class Cores:
    """What a rank computes with, and where."""

    machine: str
    share: CoreShare
    thread_count: int
    source: str
    """What has said how many threads: an option, a variable, or "" for neither."""
    is_pinned: bool

    @property
    def worker_count(self) -> int:
        """How many threads of a data layer read ahead where nothing else is said."""
        return workers_beside_computing(self.share.cpu_count)


def add_cores(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads`` and ``--pin``."""
    parser.add_argument(
        "--threads",
        type=options.positive,
        metavar="N",
        help=f"threads that compute in each rank (default: what {_VARIABLE} says, else the cores of the machine divided by "
        "its ranks)",
    )
    parser.add_argument(
        "--pin",
        choices=("auto", "off"),
        default="auto",
        help="auto (default): ranks of a machine that may use the same cores divide them, and each stays on its own; off: "
        "the system moves them about",
    )


def take_cores(
    communicator: Communicator,
    thread_count: int | None = None,
    *,
    pin: bool = True,
    near: Collection[int] = (),
    environ: Mapping[str, str] = os.environ,
) -> list[Cores]:
    """Set how many threads this rank computes with, and with `pin` where they run; return this for every rank.

    `thread_count` is what the user asks for, `near` are CPUs that suit this rank better than others, next to its GPU. All
    ranks call it, before the first backend is made and before other threads than those of libraries are started.
    """
    nearest = set(usable_cpus()) & set(near)
    own_place = local_core_place(cpus=nearest or None)
    if not own_place.machine:
        own_place = replace(own_place, machine=f"node {communicator.node_of_rank[communicator.rank]}")
    places = communicator.allgather_objects(own_place)
    share = divide(places, communicator.rank)
    wanted, source = thread_count, "--threads"
    if wanted is None:
        wanted, source = _from(environ), _VARIABLE
    if wanted is None:
        wanted, source = share.thread_count, ""
    has_own = share.is_narrowed or (bool(nearest) and not (share.is_limited or share.is_crowded))
    is_pinned = pin and has_own and wanted <= len(share.cpus) and _pin(share.cpus)
    set_thread_count(wanted, has_room=wanted <= share.cpu_count and not (share.is_limited or share.is_crowded))
    own = Cores(own_place.machine, share, wanted, source, is_pinned)
    return list(communicator.allgather_objects(own))


def log_cores(cores: Sequence[Cores]) -> None:
    """Log on one rank what all ranks compute with, and a warning where that is more than a machine has."""
    logger.info("Threads: %s", describe(cores))
    problem = find_problem(cores)
    if problem:
        logger.warning("%s", problem)


def describe(cores: Sequence[Cores]) -> str:
    """``2 in each rank, pinned to cores 0-1 / 2-3``: how many threads compute, and where."""
    counts = sorted({one.thread_count for one in cores})
    text = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if len(cores) > 1:
        text += " in each rank"
    machines: dict[str, list[str]] = {}
    for one in cores:
        cpus = one.share.cpus if one.is_pinned or not one.share.is_narrowed else None
        machines.setdefault(one.machine, []).append("" if cpus is None else format_ranges(cpus))
    patterns = list(machines.values())
    first = patterns[0] if len(set(patterns[0])) > 1 else patterns[0][:1]
    if len(first) > _MOST_NAMED:
        first = [*first[: _MOST_NAMED - 1], "...", first[-1]]
    where = f"cores {' / '.join(first)}" if all(first) else "whatever cores the system gives them"
    text += f", {'pinned to' if cores[0].is_pinned else 'on'} {where}"
    if any(pattern != patterns[0] for pattern in patterns[1:]):
        text += " of the first node, and others on other nodes"
    elif len(patterns) > 1:
        text += " of each node"
    source = cores[0].source
    return f"{text} ({source})" if source else text


def find_problem(cores: Sequence[Cores]) -> str | None:
    """More threads than a machine has cores for, in one line for all machines; None where there is room."""
    for machine in dict.fromkeys(one.machine for one in cores):
        mates = [one for one in cores if one.machine == machine]
        threads, cpus = sum(one.thread_count for one in mates), sum(one.share.cpu_count for one in mates)
        if any(one.share.is_crowded for one in mates):
            return (
                f"{len(mates)} ranks on a machine have the time of fewer cores: each computes with "
                f"{_threads(mates[0].thread_count)}, none is pinned, and they wait for each other; fewer ranks are faster"
            )
        if threads > cpus:
            rank = f" ({len(mates)} ranks)" if len(mates) > 1 else ""
            return f"{_threads(threads)}{rank} compute on a machine where they have {cpus} CPUs: expect slow steps"
    return None


def _pin(cpus: Collection[int]) -> bool:
    """Keep all threads of this process on these CPUs; return whether the system allows it."""
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError):
        return False
    with contextlib.suppress(OSError):  # threads that libraries have started, and that may end meanwhile
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)
    return True


def _from(environ: Mapping[str, str]) -> int | None:
    """The threads that OMP_NUM_THREADS asks for, on the outermost level; None where it says none."""
    word = environ.get(_VARIABLE, "").split(",")[0].strip()
    return int(word) if word.isascii() and word.isdecimal() and int(word) > 0 else None


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"
