"""``paratrain check``: say everything that is wrong with a prototxt, and what the network costs."""

from __future__ import annotations

import argparse
import logging

from paratrain.check import Report, check_file
from paratrain.check.table import format_memory, format_table
from paratrain.launch import options
from paratrain.log import init_log
from paratrain.proto import TRAIN

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain check solver.prototxt
  paratrain check train_val.prototxt --input-shape data=64,3,224,224
  paratrain check deploy.prototxt --draw net.svg
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "check",
        "say what is wrong with a net or a solver, and what it costs",
        "Read a net or a solver prototxt and report every problem at once; then list the layers of each phase with their "
        "shapes, parameters and multiply-adds, and the memory that a rank takes. Exit code 0: no problems, 1: some.",
        _EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", help="the prototxt of a net or of a solver")
    options.add_input_shape(parser)
    parser.add_argument("--draw", metavar="FILE", help="draw the net to FILE, which ends in .svg, .png or .dot")
    options.add_filters(parser)
    options.add_python(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the file and print what was found; return 1 where there are problems. Raises ParatrainError."""
    if arguments.draw is not None and not arguments.draw.lower().endswith((".svg", ".png", ".dot")):
        arguments.parser.error(f"--draw {arguments.draw}: the name must end in .svg, .png or .dot")
    init_log(logging.ERROR)
    report = check_file(
        arguments.file,
        shapes=dict(arguments.input_shape),
        level=arguments.level,
        stages=arguments.stage,
        allow_python=arguments.allow_python,
    )
    _print(report, arguments.file)
    if arguments.draw is not None:
        _draw(report, arguments.draw)
    return 1 if report.problems else 0


def _print(report: Report, path: str) -> None:
    print(f"{path}: a {report.kind}")
    for note in report.notes:
        print(f"note: {note}")
    for net in report.nets:
        print(f"\n{net.shaped.parameter.name or 'network'}, {net.title}")
        for line in format_table(net.shaped):
            print(line)
        if not net.memory.total:
            continue  # no shape is known
        kind = "to train" if net.phase == TRAIN else "to test"
        print(f"memory of a rank {kind} it{'' if net.shaped.is_complete else ', as far as the shapes are known'}:")
        for line in format_memory(net.memory, report.solver_type):
            print(line)
    print()
    for problem in report.problems:
        print(f"problem: {problem}")
    count = len(report.problems)
    print("no problems" if not count else f"{count} problem{'s' if count > 1 else ''}")


def _draw(report: Report, path: str) -> None:
    from paratrain.check.draw import draw_net

    if not report.nets:
        print(f"{path}: not drawn, since the network cannot be read")
        return
    draw_net(report.nets, path)
    print(f"drawn to {path}")
