"""``paratrain parse_log``: tables of a log, as Caffe's parse_log makes them."""

from __future__ import annotations

import argparse
from pathlib import Path

from paratrain.errors import DataError
from paratrain.launch import options
from paratrain.tools.log_tables import write_tables
from paratrain.tools.runs import open_run

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain parse_log train.log .                 (writes train.log.train and train.log.test)
  paratrain parse_log train.log . --delimiter ';' --verbose
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "parse_log",
        "make tables of a training log, as Caffe's parse_log",
        "Write LOG.train and LOG.test, two tables in CSV with NumIters, Seconds, LearningRate and the outputs of the net, from a "
        "log of Caffe or of paratrain.",
        _EXAMPLES,
    )
    parser.add_argument("logfile_path", metavar="LOG", help="the log")
    parser.add_argument("output_dir", nargs="?", default=".", metavar="DIR", help="where the tables go (default: here)")
    parser.add_argument("--verbose", action="store_true", help="say what is written")
    parser.add_argument("--delimiter", type=_character, default=",", metavar="C", help="between cells (default: ,)")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the tables. Raises ParatrainError."""
    path, folder = Path(arguments.logfile_path), Path(arguments.output_dir)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the log itself")
    if not folder.is_dir():
        raise DataError(f"{folder}: the folder for the tables does not exist; make it first")
    for written in write_tables(open_run(path), path.name, folder, arguments.delimiter):
        if arguments.verbose:
            print(f"Wrote {written}")
    return 0


def _character(text: str) -> str:
    text = text.replace("\\t", "\t")
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character")
    return text
