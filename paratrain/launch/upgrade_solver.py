"""``paratrain upgrade_solver``: bring an old solver file to today's form."""

from __future__ import annotations

import argparse

from paratrain.launch import upgrading
from paratrain.proto import SolverParameter, upgrade_solver

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain upgrade_solver old_solver.prototxt solver.prototxt
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    upgrading.add_parser(subparsers, "upgrade_solver", "solver", _EXAMPLES, run)


def run(arguments: argparse.Namespace) -> int:
    """Upgrade the file; return the exit code. Raises ParatrainError."""
    return upgrading.upgrade_file(
        arguments.input, arguments.output, SolverParameter, lambda solver, report: upgrade_solver(solver, report=report)
    )
