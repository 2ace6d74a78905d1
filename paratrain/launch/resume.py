"""The options of ``train`` about snapshots: where to go on from, and which to keep."""

from __future__ import annotations

import argparse
import logging

from paratrain.comm.communicator import Communicator
from paratrain.errors import ParatrainError, SnapshotError
from paratrain.proto import SolverParameter
from paratrain.snapshot import Metric, find_newest
from paratrain.solvers import Solver

__all__ = ["add_keep", "add_resume", "find_state", "prepare_keeper"]

logger = logging.getLogger(__name__)

AUTO = "auto"


def add_resume(start: argparse._ActionsContainer) -> None:
    """Add ``--resume``."""
    start.add_argument(
        "--resume",
        metavar="auto|STATE",
        help="go on from this solverstate; auto: from the newest good snapshot of snapshot_prefix, or from the beginning "
        "where there is none",
    )


def add_keep(parser: argparse.ArgumentParser) -> None:
    """Add ``--keep`` and ``--keep-best``."""
    parser.add_argument(
        "--keep", type=_count, metavar="N", help="keep the last N snapshots: older ones go when a new one is complete"
    )
    parser.add_argument(
        "--keep-best",
        type=_metric,
        metavar="METRIC",
        help="keep the snapshot of the best test score, too, by an output of a test net: accuracy, loss, max:NAME, min:NAME",
    )


def find_state(arguments: argparse.Namespace, parameter: SolverParameter, communicator: Communicator) -> str | None:
    """Return the solver state to go on from, the same on every rank; None to start from the beginning.

    All ranks call it. Raises SnapshotError.
    """
    given: str | None = arguments.snapshot or arguments.resume
    if given != AUTO or arguments.snapshot is not None:
        return given
    found: str | None = None
    problem: str | None = None
    if communicator.rank == 0:
        try:
            newest = find_newest(parameter.snapshot_prefix)
            found = None if newest is None else str(newest)
        except (SnapshotError, OSError) as error:
            problem = str(error)
    found, problem = communicator.broadcast_object((found, problem))
    if problem is not None:
        raise SnapshotError(problem)
    if found is None and communicator.rank == 0:
        logger.info(
            "There is no good snapshot of '%s' to resume: starting from the beginning", parameter.snapshot_prefix
        )
    return found


def prepare_keeper(arguments: argparse.Namespace, solver: Solver) -> None:
    """Tell the root's solver which snapshots to keep.

    Raises SnapshotError for a score that no test net has, or where the snapshots of best scores cannot be written. Where
    only a signal asks for snapshots, this is a warning.
    """
    keeper = solver.keeper
    keeper.keep, keeper.metric = arguments.keep, arguments.keep_best
    parameter = solver.parameter
    if keeper.metric is None:
        if not parameter.snapshot and not parameter.snapshot_after_train:
            try:
                solver.check_snapshots()
            except ParatrainError as error:
                logger.warning("A signal that asks for a snapshot, as SIGTERM does, would end the run: %s", error)
        return
    outputs = sorted({name for net in solver.test_nets for name in net.output_names})
    if keeper.metric.name not in outputs:
        found = f"their outputs are {', '.join(outputs)}" if outputs else "the solver has no test net"
        raise SnapshotError(f"--keep-best {keeper.metric}: no test net has an output '{keeper.metric.name}'; {found}")
    solver.check_snapshots()


def _count(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not above 0; leave --keep out to keep all")
    return value


def _metric(text: str) -> Metric:
    try:
        return Metric.parse(text)
    except SnapshotError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
