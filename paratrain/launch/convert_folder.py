"""``paratrain convert_folder``: a folder of images with a folder for each class, as databases for training and testing."""

from __future__ import annotations

import argparse
from pathlib import Path

from paratrain.launch import converting, options
from paratrain.log import log
from paratrain.tools.image_folder import find_classes, write_databases
from paratrain.tools.work import Work

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain convert_folder images photos_data --resize_height 32 --resize_width 32
  paratrain convert_folder images photos_encoded --encoded --test-share 0.25 --seed 3
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "convert_folder",
        "make databases of a folder that holds a folder for each class",
        "Read FOLDER/CLASS/IMAGE and make the folder OUTPUT: train_lmdb and test_lmdb (or ..._leveldb), shuffled; labels.txt "
        "with the class names, in the order of their labels; and the lists train.txt and test.txt.",
        _EXAMPLES,
    )
    parser.add_argument("folder", metavar="FOLDER", help="holds a folder for each class")
    parser.add_argument("output", metavar="OUTPUT", help="the folder to make")
    parser.add_argument(
        "--test-share",
        type=_share,
        default=0.1,
        metavar="S",
        help="the share of each class that goes to the test, from 0 (no test) to below 1 (default: 0.1)",
    )
    converting.add_seed(parser)
    converting.add_backend(parser)
    converting.add_sizes(parser)
    converting.add_bad_record(parser)
    converting.add_threads(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the folder; return the exit code. Raises ParatrainError."""
    settings = converting.image_settings(arguments)
    folder, output = Path(arguments.folder), Path(arguments.output)
    with converting.tool_run():
        settings.check()
        found = find_classes(folder)
        image_count = sum(len(images) for images in found.images)
        log(f"{len(found.names)} classes, {image_count} images; {len(found.ignored)} other files are ignored")
        with Work(image_count, "images") as work:
            done = write_databases(
                folder,
                output,
                settings,
                work,
                found=found,
                test_share=arguments.test_share,
                seed=arguments.seed,
                backend=arguments.backend,
                check_size=arguments.check_size,
                stop_on_bad=arguments.on_bad_record == "stop",
                thread_count=arguments.threads,
            )
    for name, conversion in done.items():
        skipped = f", {len(conversion.skipped):,} could not be read" if conversion.skipped else ""
        print(f"written to {output / name}: {conversion.count:,} images{skipped}")
    print(f"written to {output / 'labels.txt'}: {len(found.names)} classes")
    print(work.speed())
    return 0


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value
