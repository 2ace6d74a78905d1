"""``paratrain test``: score a network with trained weights."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Sequence

from paratrain.launch import options
from paratrain.launch.single import open_net
from paratrain.proto import TEST
from paratrain.solvers.display import Output, weighted
from paratrain.solvers.testing import score

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

_EXAMPLES = """\
  paratrain test -model lenet_train_test.prototxt -weights lenet_iter_1000.caffemodel -iterations 100
  paratrain test --model=net.prototxt --weights=net.caffemodel --stage=deploy
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "test",
        "score a network with trained weights",
        "Run the TEST phase of a network over some batches, and print the mean of every output.",
        _EXAMPLES,
    )
    options.add_model(parser)
    options.add(parser, "weights", required=True, metavar="A,B", help="the trained weights, by layer name")
    options.add_iterations(parser, "batches to score")
    options.add_devices(parser, "check that these GPUs are there; this version computes on the CPU")
    options.add_filters(parser)
    options.add_python(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Score the net and print the result; return the exit code. Raises ParatrainError."""
    options.check_model(arguments)
    with contextlib.closing(open_net(arguments, TEST)) as net:
        options.load_all(net, arguments.weights)
        logger.info("Running for %d iterations.", arguments.iterations)
        loss, outputs = score(net, arguments.iterations, _print_batch)
    logger.info("Loss: %g", loss)
    for output in outputs:
        logger.info("%s = %g%s", output.name, output.value, weighted(output))
    return 0


def _print_batch(number: int, outputs: Sequence[Output]) -> None:
    for output in outputs:
        logger.info("Batch %d, %s = %g", number, output.name, output.value)
