"""``paratrain compute_image_mean``: the mean of the images of a database."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from paratrain.errors import DataError
from paratrain.launch import converting, options
from paratrain.log import log
from paratrain.proto import write_binary
from paratrain.tools.databases import open_any_database
from paratrain.tools.image_mean import channel_means, compute_mean, mean_blob
from paratrain.tools.work import Work

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain compute_image_mean mnist_train_lmdb mean.binaryproto
  paratrain compute_image_mean mnist_train_lmdb      (prints the mean of each channel)
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "compute_image_mean",
        "compute the mean image of a database",
        "Compute the mean of all images of a database, which have one size, and print that of each channel, for mean_value. "
        "OUTPUT_FILE gets the mean image, for mean_file: the file that Caffe's compute_image_mean writes, bit for bit.",
        _EXAMPLES,
    )
    parser.add_argument("database", metavar="INPUT_DB", help="an LMDB or LevelDB, raw or encoded")
    parser.add_argument(
        "output", metavar="OUTPUT_FILE", nargs="?", help="the mean file to write, such as mean.binaryproto"
    )
    converting.add_backend(parser, default=None)
    converting.add_threads(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Compute the mean; return the exit code. Raises ParatrainError."""
    with converting.tool_run():
        if arguments.output is not None and not Path(arguments.output).absolute().parent.is_dir():
            raise DataError(f"{arguments.output}: cannot be written: there is no such folder")
        opened = contextlib.closing(open_any_database(arguments.database, arguments.backend))
        with opened as database, Work(len(database), "images", log_every=10_000) as work:
            mean = compute_mean(database, work, thread_count=arguments.threads)
        if arguments.output is not None:
            log(f"Write to {arguments.output}")
            write_binary(arguments.output, mean_blob(mean))
        log(f"Number of channels: {len(mean)}")
        for channel, value in enumerate(channel_means(mean)):
            log(f"mean_value channel [{channel}]:{value:g}")
    print(f"mean of (C, H, W) {mean.shape}: {work.speed()}")
    return 0
