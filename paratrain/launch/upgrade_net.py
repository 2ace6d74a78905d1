"""``paratrain upgrade_net``: bring an old network file to today's form."""

from __future__ import annotations

import argparse

from paratrain.launch import upgrading
from paratrain.proto import NetParameter, upgrade_net

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain upgrade_net old_train_val.prototxt train_val.prototxt
  paratrain upgrade_net old.caffemodel new.caffemodel
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    upgrading.add_parser(subparsers, "upgrade_net", "network", _EXAMPLES, run)


def run(arguments: argparse.Namespace) -> int:
    """Upgrade the file; return the exit code. Raises ParatrainError."""
    return upgrading.upgrade_file(arguments.input, arguments.output, NetParameter, upgrade_net)
