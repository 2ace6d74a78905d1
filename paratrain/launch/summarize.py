"""``paratrain summarize``: a net as a table, and what weights hold."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from paratrain.check import Report, check_file
from paratrain.check.nets import NetReport
from paratrain.check.summary import format_table, open_weights, summarize_net, summarize_weights
from paratrain.data.hdf5 import is_hdf5
from paratrain.errors import NetError
from paratrain.launch import options
from paratrain.log import init_log
from paratrain.proto import TEST, TRAIN

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain summarize train_val.prototxt
  paratrain summarize deploy.prototxt lenet_iter_5000.caffemodel
  paratrain summarize lenet_iter_5000.caffemodel
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "summarize",
        "show a net as a table: layers, shapes, parameters, multiply-adds",
        "List the layers of a net with their blobs, kernels, shapes, parameters and multiply-adds; with weights, also what these "
        "hold and whether they fit.\n\nkernel 11/4+2 96/2: size 11, stride 4, pad 2, 96 outputs, 2 groups. param (x2 Dx0): twice "
        "the learning rate, no\ndecay. A top in [ ] is read by no layer.",
        _EXAMPLES,
    )
    parser.add_argument("filename", metavar="FILE", help="a net or solver prototxt, or weights alone")
    parser.add_argument("weights", nargs="?", metavar="WEIGHTS", help="a caffemodel, or weights in HDF5")
    parser.add_argument("-w", "--max-width", type=options.positive, metavar="N", help="columns are at most N wide")
    options.add(parser, "phase", choices=("TRAIN", "TEST"), help="the phase (default: TRAIN)")
    options.add_filters(parser)
    options.add_python(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables. Raises ParatrainError."""
    init_log(logging.ERROR)
    width = arguments.max_width
    if _holds_weights(Path(arguments.filename)):
        if arguments.weights is not None:
            arguments.parser.error("give the net first: paratrain summarize net.prototxt net.caffemodel")
        print("\n".join(format_table(summarize_weights(open_weights(arguments.filename)), width)))
        return 0
    report = check_file(
        arguments.filename, level=arguments.level, stages=arguments.stage, allow_python=arguments.allow_python
    )
    net = _choose(report, arguments.filename, arguments.phase)
    weights = open_weights(arguments.weights) if arguments.weights is not None else None
    print(f"{net.shaped.parameter.name or 'network'}, {net.title}")
    print("\n".join(format_table(summarize_net(net.shaped), width)))
    if weights is not None:
        print(f"\n{arguments.weights}")
        print("\n".join(format_table(summarize_weights(weights, net.shaped), width)))
    for problem in net.problems:
        print(f"problem: {problem}")
    return 0


def _holds_weights(path: Path) -> bool:
    return path.is_file() and (path.suffix in (".caffemodel", ".h5") or is_hdf5(path))


def _choose(report: Report, path: str, phase: str | None) -> NetReport:
    """The net of the phase; of a net that is the same in both, that one. NetError where the file holds no net."""
    wanted = TEST if phase == "TEST" else TRAIN
    nets = [net for net in report.nets if net.shaped.layers]
    if not nets:
        raise NetError(f"{path}: no layers can be read: {'; '.join(report.problems[:3]) or 'the net is empty'}")
    return next((net for net in nets if net.phase == wanted), nets[0])
