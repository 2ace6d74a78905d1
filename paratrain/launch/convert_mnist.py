"""``paratrain convert_mnist``: MNIST's own files as an LMDB or LevelDB."""

from __future__ import annotations

import argparse
import re

from paratrain.launch import converting, options
from paratrain.tools.mnist import read_digits, write_digits
from paratrain.tools.work import Work

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain convert_mnist t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz t10k_lmdb
  paratrain convert_mnist t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz first_lmdb --records 0:8000
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "convert_mnist",
        "make a database of MNIST's own files",
        "Store MNIST's digits, or what else has its format (Fashion-MNIST, KMNIST ...), in a new database, with the keys "
        "and values of Caffe's convert_mnist_data. Files may be gzipped.",
        _EXAMPLES,
    )
    parser.add_argument("images", metavar="IMAGE_FILE", help="such as train-images-idx3-ubyte.gz")
    parser.add_argument("labels", metavar="LABEL_FILE", help="such as train-labels-idx1-ubyte.gz")
    parser.add_argument("database", metavar="DB_NAME", help="the folder to make")
    converting.add_backend(parser)
    parser.add_argument(
        "--records",
        type=_range,
        default=(0, None),
        metavar="FIRST:END",
        help="the records to take, END not included; keys start from 0 in any case (default: all)",
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the files; return the exit code. Raises ParatrainError."""
    with converting.tool_run():
        pixels, labels = read_digits(arguments.images, arguments.labels, *arguments.records)
        with Work(len(pixels), "digits", log_every=0) as work:
            write_digits(arguments.database, pixels, labels, work, backend=arguments.backend)
    converting.report(work, arguments.database)
    return 0


def _range(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0:8000")
    return int(match[1] or 0), int(match[2]) if match[2] else None
