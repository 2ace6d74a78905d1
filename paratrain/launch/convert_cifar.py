"""``paratrain convert_cifar``: CIFAR's binary files as LMDBs or LevelDBs."""

from __future__ import annotations

import argparse
from pathlib import Path

from paratrain.launch import converting, options
from paratrain.tools.cifar import count_records, write_databases
from paratrain.tools.databases import BACKENDS
from paratrain.tools.work import Work

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain convert_cifar cifar-10-batches-bin examples_cifar10
  paratrain convert_cifar cifar-10-batches-bin examples_cifar10 leveldb
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "convert_cifar",
        "make databases of CIFAR-10 or CIFAR-100",
        "Store CIFAR's binary version in OUTPUT_FOLDER/cifar10_train_lmdb and cifar10_test_lmdb (or cifar100_..., or "
        "..._leveldb), with the keys and values of Caffe's convert_cifar_data. The order is that of the files.",
        _EXAMPLES,
    )
    parser.add_argument("input", metavar="INPUT_FOLDER", help="holds data_batch_1.bin ..., or train.bin and test.bin")
    parser.add_argument("output", metavar="OUTPUT_FOLDER", help="where the two databases are made")
    parser.add_argument(
        "kind", metavar="BACKEND", nargs="?", choices=BACKENDS, default="lmdb", help="lmdb or leveldb (default: lmdb)"
    )
    parser.add_argument(
        "--coarse", action="store_true", help="the 20 coarse labels of CIFAR-100 instead of the 100 fine ones"
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the files; return the exit code. Raises ParatrainError."""
    folder = Path(arguments.input)
    with converting.tool_run(), Work(count_records(folder), "images", log_every=0) as work:
        written = write_databases(folder, Path(arguments.output), work, backend=arguments.kind, coarse=arguments.coarse)
    for path, count in written.items():
        print(f"written to {path}: {count:,} images")
    print(work.speed())
    return 0
