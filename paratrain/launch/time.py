"""``paratrain time``: how long each layer of a network takes."""

from __future__ import annotations

import argparse
import json
import logging
import time

import numpy as np

from paratrain.data_parallel import TreeRanks
from paratrain.launch import options
from paratrain.launch.compare import comparable_backends, compare, time_layers
from paratrain.launch.compare_table import comparison_values, format_comparison
from paratrain.launch.cores import add_cores
from paratrain.launch.single import Opened, run_on_ranks
from paratrain.net import Net
from paratrain.proto import TEST, TRAIN
from paratrain.solvers.ranks import Ranks

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

_EXAMPLES = """\
  paratrain time -model net.prototxt
  paratrain time -model net.prototxt --compare --threads 1      (each layer on every backend)
  paratrain time -model net.prototxt -gpu 0 --compare --backend cupy --precision bfloat16
  mpirun -n 2 paratrain time -model net.prototxt -iterations 10
  paratrain time --model=net.prototxt --phase=TEST --iterations=10
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "time",
        "time each layer of a network",
        "Run a network forward and backward some times, and print what each layer takes on average. Under mpirun the times "
        "are averages over the ranks, which run side by side, and the exchange of parameters and gradients is timed as well.",
        _EXAMPLES,
    )
    options.add_model(parser)
    options.add(parser, "weights", metavar="A,B", help="trained weights, by layer name (default: the fillers' values)")
    options.add_copying(parser)
    options.add(
        parser, "phase", choices=("TRAIN", "TEST"), default="TRAIN", help="the phase of the net (default: TRAIN)"
    )
    options.add_iterations(parser, "times to run it")
    options.add_devices(parser, "compute on the first of these GPUs; under mpirun rank l of a machine takes the l-th")
    add_cores(parser)
    options.add_filters(parser)
    options.add_python(parser)
    options.add_data(parser)
    parser.add_argument(
        "--compare",
        action="store_true",
        help="time the net on every backend that works here, in turns, or on that of --backend, and print a table: which "
        "kernels ran, GFLOP/s, and the share of the machine's peak",
    )
    parser.add_argument("--json", action="store_true", help="print what --compare finds as JSON (schema 1)")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Time the net and print the result; return the exit code. Raises ParatrainError."""
    options.check_model(arguments)
    if arguments.json and not arguments.compare:
        arguments.parser.error("--json goes with --compare")
    phase = TEST if arguments.phase == "TEST" else TRAIN
    if arguments.compare:
        return run_on_ranks(arguments, phase, lambda opened: _compare(opened, arguments))
    return run_on_ranks(arguments, phase, lambda opened: _time(opened, arguments.iterations))


def _compare(opened: Opened, arguments: argparse.Namespace) -> None:
    opened.close()  # it has told that the net is sound; each backend gets one of its own
    precision = arguments.precision or "float32"
    names = [arguments.backend] if arguments.backend else comparable_backends(precision)
    comparison = compare(opened.open_net, names, opened.ranks, arguments.iterations, precision)
    if opened.ranks.rank == 0:
        text = json.dumps(comparison_values(comparison)) if arguments.json else "\n".join(format_comparison(comparison))
        print(text)


def _time(opened: Opened, iteration_count: int) -> None:
    net = opened.net
    # A first pass, not counted, in which memory is taken and libraries warm up.
    logger.info("Performing Forward")
    logger.info("Initial loss: %g", net.forward_from_to())
    logger.info("Performing Backward")
    net.backward_from_to()
    logger.info("*** Benchmark begins ***")
    logger.info("Testing for %d iterations.", iteration_count)
    _benchmark(net, opened.ranks, iteration_count)
    if opened.tree is not None:
        _time_exchange(net, opened.tree, iteration_count)
    logger.info("*** Benchmark ends ***")


def _benchmark(net: Net, ranks: Ranks, iteration_count: int) -> None:
    layer_count = len(net.layers)
    forward_s, backward_s = [0.0] * layer_count, [0.0] * layer_count
    begin = time.perf_counter()
    for iteration in range(iteration_count):
        started = time.perf_counter()
        for sums_s, layer_s in zip((forward_s, backward_s), time_layers(net), strict=True):
            sums_s[:] = map(sum, zip(sums_s, layer_s, strict=True))
        milliseconds = 1000 * (time.perf_counter() - started)
        logger.info("Iteration: %d forward-backward time: %g ms.", iteration + 1, milliseconds)
    total_s = time.perf_counter() - begin
    sums = np.array([total_s, *forward_s, *backward_s])
    ranks.sum_to_root(sums)
    total_s, *means_s = (sums / ranks.size).tolist()
    forward_s, backward_s = means_s[:layer_count], means_s[layer_count:]
    scale = 1000 / iteration_count
    logger.info("Average time per layer: ")
    for name, forward, backward in zip(net.layer_names, forward_s, backward_s, strict=True):
        logger.info("%10s\tforward: %g ms.", name, forward * scale)
        logger.info("%10s\tbackward: %g ms.", name, backward * scale)
    logger.info("Average Forward pass: %g ms.", sum(forward_s) * scale)
    logger.info("Average Backward pass: %g ms.", sum(backward_s) * scale)
    logger.info("Average Forward-Backward: %g ms.", total_s * scale)
    logger.info("Total Time: %g ms.", total_s * 1000)


def _time_exchange(net: Net, ranks: TreeRanks, iteration_count: int) -> None:
    """Time what a step of training sends: the net's parameters down the tree, and as many gradients up."""
    values = np.zeros(net.parameters.count, net.parameters.dtype)
    down_s = up_s = 0.0
    for iteration in range(iteration_count + 1):
        begin = time.perf_counter()
        ranks.exchange.broadcast(values)
        middle = time.perf_counter()
        ranks.exchange.reduce(values)
        if iteration > 0:  # the first takes memory and opens connections
            down_s, up_s = down_s + middle - begin, up_s + time.perf_counter() - middle
    scale = 1000 / iteration_count
    logger.info(
        "Average Exchange of %d bytes, %d ranks: %g ms (parameters down: %g ms, gradients up: %g ms).",
        values.nbytes, ranks.size, (down_s + up_s) * scale, down_s * scale, up_s * scale,
    )  # fmt: skip
