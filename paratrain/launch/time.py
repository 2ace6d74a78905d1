"""``paratrain time``: how long each layer of a network takes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Callable

from paratrain.launch import options
from paratrain.launch.single import open_net
from paratrain.net import Net
from paratrain.proto import TEST, TRAIN

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

_EXAMPLES = """\
  paratrain time -model lenet_train_test.prototxt
  paratrain time --model=net.prototxt --phase=TEST --iterations=10
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "time",
        "time each layer of a network",
        "Run a network forward and backward some times, and print what each layer takes on average.",
        _EXAMPLES,
    )
    options.add_model(parser)
    options.add(parser, "weights", metavar="A,B", help="trained weights, by layer name (default: the fillers' values)")
    options.add(
        parser, "phase", choices=("TRAIN", "TEST"), default="TRAIN", help="the phase of the net (default: TRAIN)"
    )
    options.add_iterations(parser, "times to run it")
    options.add_devices(parser, "check that these GPUs are there; this version computes on the CPU")
    options.add_filters(parser)
    options.add_python(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Time the net and print the result; return the exit code. Raises ParatrainError."""
    options.check_model(arguments)
    with contextlib.closing(open_net(arguments, TEST if arguments.phase == "TEST" else TRAIN)) as net:
        if arguments.weights is not None:
            options.load_all(net, arguments.weights)
        # A first pass, not counted, in which memory is taken and libraries warm up.
        logger.info("Performing Forward")
        logger.info("Initial loss: %g", net.forward_from_to())
        logger.info("Performing Backward")
        net.backward_from_to()
        logger.info("*** Benchmark begins ***")
        logger.info("Testing for %d iterations.", arguments.iterations)
        _benchmark(net, arguments.iterations)
        logger.info("*** Benchmark ends ***")
    return 0


def _benchmark(net: Net, iteration_count: int) -> None:
    layer_count = len(net.layers)
    forward_s, backward_s = [0.0] * layer_count, [0.0] * layer_count
    begin = time.perf_counter()
    for iteration in range(iteration_count):
        started = time.perf_counter()
        for index in range(layer_count):
            forward_s[index] += _seconds(net.forward_layer, index, net)
        for index in reversed(range(layer_count)):
            backward_s[index] += _seconds(net.backward_layer, index, net)
        milliseconds = 1000 * (time.perf_counter() - started)
        logger.info("Iteration: %d forward-backward time: %g ms.", iteration + 1, milliseconds)
    total_s = time.perf_counter() - begin
    scale = 1000 / iteration_count
    logger.info("Average time per layer: ")
    for name, forward, backward in zip(net.layer_names, forward_s, backward_s, strict=True):
        logger.info("%10s\tforward: %g ms.", name, forward * scale)
        logger.info("%10s\tbackward: %g ms.", name, backward * scale)
    logger.info("Average Forward pass: %g ms.", sum(forward_s) * scale)
    logger.info("Average Backward pass: %g ms.", sum(backward_s) * scale)
    logger.info("Average Forward-Backward: %g ms.", total_s * scale)
    logger.info("Total Time: %g ms.", total_s * 1000)


def _seconds(run_layer: Callable[[int], object], index: int, net: Net) -> float:
    begin = time.perf_counter()
    run_layer(index)
    net.context.backend.synchronize()
    return time.perf_counter() - begin
