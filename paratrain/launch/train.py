"""``paratrain train``: train a network, on one rank or on many."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys

from paratrain.backends import Backend
from paratrain.comm.communicator import Communicator
from paratrain.comm.environment import launcher_environment
from paratrain.data_parallel import create_parallel_solver
from paratrain.data_parallel.ending import ending_exchange
from paratrain.data_parallel.timeline import check_timeline_path
from paratrain.errors import NotFiniteError, RanksDifferError, SnapshotError, SpoiltParametersError
from paratrain.launch import options
from paratrain.launch.abort import agree, agreed, connect, guard, start_guard
from paratrain.launch.batch_norm import add_batch_norm
from paratrain.launch.batch_options import add_batches, batch_editor, set_passes
from paratrain.launch.computing import near_cores, node_links, open_backend
from paratrain.launch.cores import add_cores, take_cores
from paratrain.launch.device import Computing, choose, count_ranks
from paratrain.launch.exchanging import add_exchange, wanted_exchange
from paratrain.launch.gradient_dtype import add_gradient_dtype
from paratrain.launch.head import log_head
from paratrain.launch.log_file import open_log_file
from paratrain.launch.loss_scale import add_loss_scale, set_loss_scale
from paratrain.launch.observing import Observers, add_observers, check_observers
from paratrain.launch.overrides import override
from paratrain.launch.rank_gpus import RankGpus
from paratrain.launch.rank_tree import RankTree, add_topology, choose_tree
from paratrain.launch.recording import Recording, WarningList, add_recording, open_metrics
from paratrain.launch.reports import report_rank, report_training
from paratrain.launch.resume import AUTO, add_keep, add_resume, find_state, prepare_keeper
from paratrain.launch.self_launch import launch_ranks
from paratrain.launch.shuffling import add_shuffle, shuffled
from paratrain.launch.signals import EFFECTS, SignalWatch
from paratrain.launch.stalls import activity_of, add_stalls, start_watching
from paratrain.log import init_log
from paratrain.net import CopyRules
from paratrain.net.device_errors import telling_device_errors
from paratrain.proto import SolverParameter
from paratrain.snapshot import check_writable
from paratrain.solvers import NetOptions, Solver, read_solver
from paratrain.solvers.feeding import log_bad_records
from paratrain.solvers.sentinel import NAN_MODES

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

_EXAMPLES = """\
  paratrain train solver.prototxt
  mpirun -n 4 paratrain train solver.prototxt --metrics run.jsonl --metrics run.csv --tensorboard events
  mpirun -n 2 paratrain train solver.prototxt --batch-mode global   (the batches of one rank, shared by two)
  paratrain train solver.prototxt -gpu all                        (starts a rank for each GPU itself)
  paratrain train --cpu -gpu 0,1 solver.prototxt                  (starts two ranks itself, on CPU cores)
  paratrain train solver.prototxt --set base_lr=0.001 --set lr_policy=fixed --seed 7 --iterations 100
  paratrain train solver.prototxt --quiet --log-dir logs --nan skip
  paratrain train -solver solver.prototxt -weights pretrained.caffemodel
  paratrain train fine_solver.prototxt -weights pretrained.caffemodel --rename ip1:hidden --allow-mismatch
  paratrain train -solver solver.prototxt -snapshot lenet_iter_5000.solverstate
  paratrain train solver.prototxt --shuffle window:20000
  paratrain train solver.prototxt --resume auto --keep 3 --keep-best accuracy
  mpirun -n 4 paratrain train solver.prototxt --exchange sharded
  paratrain train solver.prototxt --timeline timeline.json.gz --timeline-steps 1:10
  mpirun -n 4 paratrain train solver.prototxt --topology plan.json       (saved by paratrain topology --save plan.json)
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "train",
        "train a network from a solver prototxt",
        "Train the network that a solver prototxt names. Under mpirun every rank takes its share of the records, and "
        "batch_size is that of one rank.\n\nSIGTERM and SIGUSR1 write a snapshot and stop, SIGINT and SIGHUP have the "
        "effects given below, on all ranks after the\niteration or between test batches, whichever rank gets the "
        "signal; a second SIGINT stops at once.",
        _EXAMPLES,
    )
    parser.add_argument("file", nargs="?", metavar="SOLVER", help="the solver prototxt")
    options.add(parser, "solver", metavar="SOLVER", help="the solver prototxt, in Caffe's spelling")
    start = parser.add_mutually_exclusive_group()
    options.add(start, "weights", metavar="A,B", help="start from the weights in these caffemodels, by layer name")
    options.add(start, "snapshot", metavar="STATE", help="go on from this solverstate")
    add_resume(parser)
    add_keep(parser)
    options.add_copying(parser)
    add_run(parser)
    add_topology(parser)
    add_exchange(parser)
    add_gradient_dtype(parser)
    add_batch_norm(parser)
    add_stalls(parser)
    add_observers(parser)
    parser.add_argument(
        "--check-links",
        action="store_true",
        help="first move known bytes over every link between ranks, and go around links that are bad",
    )
    add_loss_scale(parser)
    options.add_devices(parser, "start one rank for each of these GPUs (under mpirun the ranks are there already)")
    add_cores(parser)
    options.add_filters(parser)
    options.add_python(parser)
    options.add_data(parser)
    add_recording(parser)
    parser.set_defaults(run=run, parser=parser)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add what changes the settings of the run, and how it ends."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="give a field of the solver this value instead; may be given several times",
    )
    add_batches(parser)
    add_shuffle(parser)
    options.add(
        parser, "iterations", type=options.positive, metavar="N", help="train N more iterations at most, up to max_iter"
    )
    options.add(parser, "seed", type=options.seed, metavar="N", help="use this random_seed")
    parser.add_argument(
        "--nan",
        choices=NAN_MODES,
        default="stop",
        help="what follows a loss or gradient that is not finite: stop (default), or skip the update of that step",
    )
    for name, default in (("sigint", "stop"), ("sighup", "snapshot")):
        options.add(
            parser,
            f"{name}_effect",
            choices=tuple(EFFECTS),
            default=default,
            help=f"what {name.upper()} does after the iteration (default: {default})",
        )
    parser.add_argument(
        "--quiet", action="store_true", help="only warnings and errors on stderr; log file and metrics as ever"
    )
    parser.add_argument("--log-dir", metavar="DIR", help="write the log to a file in DIR too, named as glog does")


def run(arguments: argparse.Namespace) -> int:
    """Train as the command line says; return the exit code. Raises ParatrainError before ranks are connected."""
    if (arguments.file is None) == (arguments.solver is None):
        arguments.parser.error("give the solver prototxt, once: paratrain train solver.prototxt")
    if arguments.resume is not None and (
        arguments.snapshot is not None or (arguments.weights and arguments.resume != AUTO)
    ):
        arguments.parser.error(
            "give one place to start from: -snapshot, --resume or -weights (--resume auto goes with -weights)"
        )
    check_observers(arguments)
    if launcher_environment(os.environ) is None:
        rank_count = count_ranks(arguments.gpu, arguments.cpu)
        if rank_count > 1:
            launch_ranks(rank_count, [sys.executable, "-m", "paratrain", *arguments.command])
    with WarningList() as warnings:
        return _run(arguments, warnings)


def _run(arguments: argparse.Namespace, warnings: WarningList) -> int:
    start = start_guard()
    communicator = connect(start)
    report_rank(communicator)
    init_log(logging.INFO if communicator.rank == 0 else logging.WARNING, quiet=arguments.quiet)
    # Some rounds: ranks exchange messages in the later ones, so all must have got through the one before.
    parameter, computing = agreed(communicator, lambda: _read_settings(arguments, communicator))
    arguments.cores = take_cores(
        communicator, arguments.threads, pin=arguments.pin == "auto", near=near_cores(communicator, computing)
    )
    gpus = RankGpus.gather(communicator, computing)
    backend = agreed(communicator, lambda: open_backend(arguments, communicator, gpus))
    start_watching(arguments, communicator, parameter.snapshot_prefix)
    start.close()
    planned = agreed(communicator, lambda: choose_tree(arguments.topology, communicator))
    tree = planned
    if arguments.check_links:
        from paratrain.launch.link_check import checked_tree  # much to load, for few runs

        tested = "tree" if gpus.is_on_gpus else wanted_exchange(arguments)  # GPUs' own links are tested in any case
        tree = agreed(communicator, lambda: checked_tree(communicator, planned, exchange=tested))
    solver = agreed(communicator, lambda: _create_solver(arguments, parameter, communicator, tree, backend, gpus))
    met_by_all: NotFiniteError | RanksDifferError | None = None
    effects = EFFECTS[arguments.sigint_effect], EFFECTS[arguments.sighup_effect]
    with guard(communicator), contextlib.closing(solver), SignalWatch(*effects) as solver.action_function:
        observers = Observers(arguments, solver, communicator)
        recording = Recording(arguments, solver, communicator, tree.tree, warnings)
        if communicator.rank == 0:
            logger.info("Starting Optimization")
            report_training(solver.iter)
        with ending_exchange(solver), telling_device_errors(backend, solver.activity):
            try:
                solver.solve()
            except SpoiltParametersError:  # met by the root alone, while the others wait for it
                raise
            except (NotFiniteError, RanksDifferError) as error:
                met_by_all = error
            else:
                log_bad_records([solver.net, *solver.test_nets], solver.ranks)
                if communicator.rank == 0:
                    logger.info("Optimization Done.")
            recording.close(met_by_all)
            observers.finish()
    if met_by_all is not None:
        agree(communicator, met_by_all)
    communicator.close()
    return 0


def _read_settings(arguments: argparse.Namespace, communicator: Communicator) -> tuple[SolverParameter, Computing]:
    is_root = communicator.rank == 0
    if is_root and arguments.log_dir is not None:
        open_log_file(arguments.log_dir)
    parameter = override(read_solver(arguments.file or arguments.solver), arguments.set)
    if arguments.seed is not None:
        parameter.random_seed = arguments.seed
    options.set_state(parameter.train_state, arguments)
    computing = choose(
        arguments,
        gpu_mode=parameter.solver_mode == SolverParameter.GPU,
        device_id=parameter.device_id if parameter.HasField("device_id") and communicator.size == 1 else None,
        local_rank=communicator.local_rank,
    )
    parameter.solver_mode = SolverParameter.CPU if computing.gpu is None else SolverParameter.GPU
    if arguments.weights is not None:
        parameter.weights.extend(options.weight_files(arguments.weights))
    if not parameter.weights and options.copy_rules(arguments) != CopyRules():
        raise SnapshotError(
            "--rename and --allow-mismatch are about weights, and there are none; give -weights as well"
        )
    if is_root and parameter.snapshot_after_train:
        check_writable(parameter.snapshot_prefix, hdf5=parameter.snapshot_format == SolverParameter.HDF5)
    if is_root and arguments.timeline is not None:
        check_timeline_path(arguments.timeline)
    return parameter, computing


def _create_solver(
    arguments: argparse.Namespace,
    parameter: SolverParameter,
    communicator: Communicator,
    tree: RankTree,
    backend: Backend,
    gpus: RankGpus,
) -> Solver:
    state = find_state(arguments, parameter, communicator)
    planned_passes = set_passes(arguments, parameter, communicator.size)
    passes = parameter.iter_size  # a state that is restored may change the parameter's
    with telling_device_errors(backend, "making the nets"):
        solver = create_parallel_solver(
            parameter,
            communicator,
            backend=backend,
            net_options=NetOptions(
                activity=activity_of(communicator),
                allow_python=arguments.allow_python,
                plans_memory=True,
                data=options.data_options(arguments, arguments.cores[communicator.rank].worker_count),
                copy_rules=options.copy_rules(arguments),
                edit_train_net=lambda net: shuffled(
                    batch_editor(arguments, net, communicator.size, planned_passes, passes), arguments.shuffle
                ),
            ),
            tree=tree.tree,
            exchange=wanted_exchange(arguments, on_gpus=gpus.is_on_gpus),
            roots=arguments.roots,
            machine=tree.machine,
            find_machine=node_links(communicator, gpus) if gpus.is_on_gpus and communicator.size > 1 else None,
            gradient_dtype=arguments.exchange_dtype,
            batch_norm=arguments.bn,
        )
    solver.sentinel.mode = arguments.nan
    set_loss_scale(arguments, solver)
    solver.iteration_limit = arguments.iterations
    try:
        if state is not None:
            if communicator.rank == 0:
                logger.info("Resuming from %s", state)
            solver.restore(state)
        if communicator.rank == 0:
            _prepare_root(arguments, solver, is_resumed=state is not None)
            log_head(solver, communicator, tree.description, gpus)
    except BaseException:
        solver.close()
        raise
    return solver


def _prepare_root(arguments: argparse.Namespace, solver: Solver, *, is_resumed: bool) -> None:
    prepare_keeper(arguments, solver)
    open_metrics(arguments, solver, is_resumed=is_resumed)
    solver.progress = not arguments.quiet
