"""The options that look at a run while it goes on: whether all ranks hold the same, and when each of them did what."""

from __future__ import annotations

import argparse

from paratrain.comm.communicator import Communicator
from paratrain.data_parallel.sameness import SamenessCheck
from paratrain.data_parallel.timeline import Timeline
from paratrain.launch import options
from paratrain.solvers import Solver

__all__ = ["Observers", "add_observers", "check_observers"]


def add_observers(parser: argparse.ArgumentParser) -> None:
    """Add ``--verify-every``, ``--timeline`` and ``--timeline-steps``."""
    parser.add_argument(
        "--verify-every",
        type=options.positive,
        metavar="K",
        help="every K iterations compare a checksum of the parameters over the ranks; where they differ, say which blob does, "
        "and stop",
    )
    parser.add_argument(
        "--timeline",
        metavar="FILE",
        help="write when each rank read, computed, exchanged and updated, for chrome://tracing and ui.perfetto.dev; "
        "compressed if FILE ends with .gz",
    )
    parser.add_argument(
        "--timeline-steps",
        type=_steps,
        metavar="FIRST:COUNT",
        help="the timeline is of COUNT iterations from iteration FIRST on (default: of all, up to about a million events)",
    )


def check_observers(arguments: argparse.Namespace) -> None:
    """Leave with a usage message where steps are chosen for a timeline that is not asked for."""
    if arguments.timeline_steps is not None and arguments.timeline is None:
        arguments.parser.error(
            "--timeline-steps says which part of the timeline is wanted; give --timeline FILE as well"
        )


class Observers:
    """What the options ask for, set up for ``solver``. All ranks make one, and call ``finish`` when training has ended."""

    def __init__(self, arguments: argparse.Namespace, solver: Solver, communicator: Communicator) -> None:
        self._path: str | None = arguments.timeline
        self._timeline: Timeline | None = None
        if self._path is not None:
            first, count = arguments.timeline_steps or (None, None)
            self._timeline = Timeline(solver, communicator, first=first, count=count)
        if arguments.verify_every is not None and communicator.size > 1:
            SamenessCheck(solver, communicator, arguments.verify_every)

    def finish(self) -> None:
        """Write the timeline. Raises ParatrainError, on rank 0, where it cannot be written."""
        if self._timeline is not None and self._path is not None:
            self._timeline.write(self._path)


def _steps(text: str) -> tuple[int, int]:
    """``FIRST:COUNT``, for argparse."""
    first, _, count = text.partition(":")
    if not (first.isdecimal() and count.isdecimal() and int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 100:20, the first iteration and how many of them")
    return int(first), int(count)
