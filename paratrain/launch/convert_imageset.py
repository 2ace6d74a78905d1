"""``paratrain convert_imageset``: images that a list names, as an LMDB or LevelDB."""

from __future__ import annotations

import argparse
import logging

from paratrain.data.image_list import read_list
from paratrain.launch import converting, options
from paratrain.log import log
from paratrain.tools.imageset import convert_images, shuffled
from paratrain.tools.work import Work

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

_EXAMPLES = """\
  paratrain convert_imageset images/ list.txt train_lmdb -resize_height 32 -resize_width 36
  paratrain convert_imageset --resize_height=32 --resize_width=36 --gray --shuffle images/ list.txt gray_lmdb
  paratrain convert_imageset --encoded images/ list.txt files_lmdb      (stores the files as they are)
  paratrain convert_imageset --encode_type=png --resize_height=32 --resize_width=36 images/ list.txt png_lmdb
  paratrain convert_imageset --backend=leveldb images/ list.txt train_leveldb
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "convert_imageset",
        "make a database of the images that a list names",
        "Read the images that LISTFILE names, a path, a space and a label on each line, and store them in a new database. "
        "Keys and values are those that Caffe's convert_imageset writes. The database takes its name when it is whole.",
        _EXAMPLES,
    )
    parser.add_argument("root", metavar="ROOTFOLDER/", help="is put in front of every path as it is, so it ends with /")
    parser.add_argument("list", metavar="LISTFILE", help="the list of images")
    parser.add_argument("database", metavar="DB_NAME", help="the folder to make")
    converting.add_boolean(parser, "shuffle", "store the images in a random order, which depends on --seed")
    converting.add_backend(parser)
    converting.add_sizes(parser)
    converting.add_seed(parser)
    converting.add_bad_record(parser)
    converting.add_threads(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the images; return the exit code. Raises ParatrainError."""
    settings = converting.image_settings(arguments)
    with converting.tool_run():
        settings.check()
        listed = read_list(arguments.list)
        if arguments.shuffle:
            log("Shuffling data")
            listed = shuffled(listed, arguments.seed)
        log(f"A total of {len(listed)} images.")
        if settings.encode_type and not settings.encoded:
            log("encode_type specified, assuming encoded=true.")
        if settings.gray and settings.encoded and not settings.height and not settings.encode_type:
            logger.warning("-gray has no effect on files that are stored as they are, as in Caffe; add -encode_type")
        with Work(len(listed), "images") as work:
            done = convert_images(
                arguments.root,
                listed,
                arguments.database,
                settings,
                work,
                backend=arguments.backend,
                check_size=arguments.check_size,
                stop_on_bad=arguments.on_bad_record == "stop",
                thread_count=arguments.threads,
            )
    converting.report(work, arguments.database)
    if done.skipped:
        print(f"{len(done.skipped):,} images could not be read and are not in it; the first: {done.skipped[0].path}")
    return 0
