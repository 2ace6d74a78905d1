"""``paratrain train``: train a network, on one rank or on many."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from paratrain.comm.communicator import Communicator
from paratrain.comm.environment import launcher_environment
from paratrain.data_parallel import create_parallel_solver
from paratrain.errors import ParatrainError
from paratrain.launch import options
from paratrain.launch.abort import agree, connect, guard
from paratrain.launch.device import choose_cpu, count_ranks
from paratrain.launch.self_launch import launch_ranks
from paratrain.log import init_log
from paratrain.metrics import MetricsWriter
from paratrain.proto import SolverParameter
from paratrain.snapshot import check_writable
from paratrain.solvers import Solver, read_solver

__all__ = ["add_parser", "run"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_EXAMPLES = """\
  paratrain train solver.prototxt
  mpirun -n 4 paratrain train solver.prototxt --metrics run.jsonl
  paratrain train --cpu -gpu 0,1 solver.prototxt                  (starts two ranks itself)
  paratrain train -solver solver.prototxt -weights pretrained.caffemodel
  paratrain train -solver solver.prototxt -snapshot lenet_iter_5000.solverstate
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "train",
        "train a network from a solver prototxt",
        "Train the network that a solver prototxt names. Under mpirun every rank takes its share of the records, and "
        "batch_size is that of one rank.",
        _EXAMPLES,
    )
    parser.add_argument("file", nargs="?", metavar="SOLVER", help="the solver prototxt")
    options.add(parser, "solver", metavar="SOLVER", help="the solver prototxt, in Caffe's spelling")
    start = parser.add_mutually_exclusive_group()
    options.add(start, "weights", metavar="A,B", help="start from the weights in these caffemodels, by layer name")
    options.add(start, "snapshot", metavar="STATE", help="go on from this solverstate")
    options.add_devices(parser, "start one rank for each of these GPUs (under mpirun the ranks are there already)")
    options.add_filters(parser)
    options.add_python(parser)
    parser.add_argument("--metrics", metavar="FILE", help="write the displayed figures to FILE as JSON lines")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Train as the command line says; return the exit code. Raises ParatrainError before ranks are connected."""
    if (arguments.file is None) == (arguments.solver is None):
        arguments.parser.error("give the solver prototxt, once: paratrain train solver.prototxt")
    if launcher_environment(os.environ) is None:
        rank_count = count_ranks(arguments.gpu, arguments.cpu)
        if rank_count > 1:
            launch_ranks(rank_count, [sys.executable, "-m", "paratrain", *arguments.command])
    communicator = connect()
    init_log(logging.INFO if communicator.rank == 0 else logging.WARNING)
    # Two rounds: ranks exchange messages while a solver is made, so all must have read their settings by then.
    parameter = _agreed(communicator, lambda: _read_settings(arguments, communicator.rank == 0))
    solver = _agreed(communicator, lambda: _create_solver(arguments, parameter, communicator))
    with guard(communicator), contextlib.closing(solver):
        if communicator.rank == 0:
            logger.info("Starting Optimization")
        solver.solve()
        if communicator.rank == 0:
            logger.info("Optimization Done.")
    communicator.close()
    return 0


def _agreed(communicator: Communicator, make: Callable[[], T]) -> T:
    """Return what ``make`` does, once it has worked on every rank; otherwise end all ranks."""
    made: T | None = None
    error: BaseException | None = None
    try:
        made = make()
    except OSError as found:
        parts = (found.filename, found.strerror or found)
        error = ParatrainError(": ".join(str(part) for part in parts if part is not None))
    except (Exception, KeyboardInterrupt) as found:
        error = found
    agree(communicator, error)
    assert made is not None, "agree has ended this process"
    return made


def _read_settings(arguments: argparse.Namespace, is_root: bool) -> SolverParameter:
    parameter = read_solver(arguments.file or arguments.solver)
    options.set_state(parameter.train_state, arguments)
    gpu_mode = parameter.solver_mode == SolverParameter.GPU
    reason = choose_cpu(arguments.gpu, arguments.cpu, gpu_mode)
    if is_root:
        logger.info("Use CPU. (%s)", reason)
    parameter.solver_mode = SolverParameter.CPU
    if arguments.weights is not None:
        parameter.weights.extend(options.weight_files(arguments.weights))
    if is_root and parameter.snapshot_after_train:
        check_writable(parameter.snapshot_prefix)
    return parameter


def _create_solver(arguments: argparse.Namespace, parameter: SolverParameter, communicator: Communicator) -> Solver:
    solver = create_parallel_solver(parameter, communicator, allow_python=arguments.allow_python)
    try:
        if arguments.snapshot is not None:
            if communicator.rank == 0:
                logger.info("Resuming from %s", arguments.snapshot)
            solver.restore(arguments.snapshot)
        if communicator.rank == 0:
            _prepare_root(arguments, solver)
    except BaseException:
        solver.close()
        raise
    return solver


def _prepare_root(arguments: argparse.Namespace, solver: Solver) -> None:
    parameter = solver.parameter
    if arguments.metrics is not None:
        solver.metrics = MetricsWriter(arguments.metrics, append=arguments.snapshot is not None)
    solver.progress = True
    batch = solver.images_per_iteration // (parameter.iter_size * solver.size)
    logger.info(
        "Effective batch: %d images = batch_size %d x iter_size %d x %d ranks",
        solver.images_per_iteration, batch, parameter.iter_size, solver.size,
    )  # fmt: skip
