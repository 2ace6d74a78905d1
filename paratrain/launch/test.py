"""``paratrain test``: score a network with trained weights."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from paratrain.launch import options
from paratrain.launch.cores import add_cores
from paratrain.launch.single import Opened, run_on_ranks
from paratrain.proto import TEST
from paratrain.solvers.display import Output, weighted
from paratrain.solvers.testing import Tester

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

_EXAMPLES = """\
  paratrain test -model net.prototxt -weights lenet_iter_5000.caffemodel -iterations 100
  mpirun -n 2 paratrain test -model net.prototxt -weights lenet_iter_5000.caffemodel
  paratrain test --model=net.prototxt --weights=lenet_iter_5000.caffemodel --stage=deploy
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "test",
        "score a network with trained weights",
        "Run the TEST phase of a network over some batches, and print the mean of every output. Under mpirun the ranks share "
        "the batches.",
        _EXAMPLES,
    )
    options.add_model(parser)
    options.add(parser, "weights", required=True, metavar="A,B", help="the trained weights, by layer name")
    options.add_copying(parser)
    options.add_iterations(parser, "batches to score")
    options.add_devices(parser, "compute on the first of these GPUs; under mpirun rank l of a machine takes the l-th")
    add_cores(parser)
    options.add_filters(parser)
    options.add_python(parser)
    options.add_data(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Score the net and print the result; return the exit code. Raises ParatrainError."""
    options.check_model(arguments)
    return run_on_ranks(arguments, TEST, lambda opened: _score(opened, arguments.iterations))


def _score(opened: Opened, batch_count: int) -> None:
    if not (opened.is_shared or opened.ranks.rank == 0):
        return
    opened.net.plan_memory()
    tester = Tester(opened.net, batch_count, opened.ranks if opened.is_shared else None)
    logger.info("Running for %d iterations.", batch_count)
    loss, outputs = tester.run(_print_batch)
    if opened.ranks.rank > 0:
        return
    logger.info("Loss: %g", loss)
    for output in outputs:
        logger.info("%s = %g%s", output.name, output.value, weighted(output))


def _print_batch(number: int, outputs: Sequence[Output]) -> None:
    for output in outputs:
        logger.info("Batch %d, %s = %g", number, output.name, output.value)
