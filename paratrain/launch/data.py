"""``paratrain data``: what a database, an HDF5 file, a list of images or an MNIST file holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy.typing as npt

from paratrain.data import images
from paratrain.errors import DataError
from paratrain.launch import converting, options
from paratrain.proto import write_atomically
from paratrain.tools.contact_sheet import draw_sheet
from paratrain.tools.contents import Contents, Source, look_through, spread
from paratrain.tools.contents_text import contents_values, format_contents, label_name
from paratrain.tools.open_contents import open_contents
from paratrain.tools.work import Work

__all__ = ["add_parser", "run"]

_ALL_UP_TO = 10_000
_SAMPLE_COUNT = 2_000

_EXAMPLES = """\
  paratrain data mnist_train_lmdb
  paratrain data mnist_train_lmdb --sheet digits.png --sheet-count 100
  paratrain data mnist_test_lmdb --check --json
  paratrain data list.txt --root images/
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "data",
        "show what a database, an HDF5 file or a list of images holds",
        "Show how many records there are, their shapes, how they are stored, the labels with a histogram, and damaged "
        f"records. Up to {_ALL_UP_TO:,} records are all read; of more, {_SAMPLE_COUNT:,}, evenly spread, unless --check is "
        "given. Exit code 0: nothing is damaged, 1: something is.",
        _EXAMPLES,
    )
    parser.add_argument(
        "path",
        metavar="FILE|FOLDER",
        help="an LMDB or LevelDB, an HDF5 file or the text file that lists such files, a list of images, a file of MNIST",
    )
    parser.add_argument("--check", action="store_true", help="read every record, however many there are")
    parser.add_argument("--sheet", metavar="FILE.png", help="draw images with their labels to FILE.png")
    parser.add_argument(
        "--sheet-count", type=options.positive, default=64, metavar="N", help="how many images to draw (default: 64)"
    )
    parser.add_argument(
        "--rgb", action="store_true", help="channels are red, green, blue, as in CIFAR; not Caffe's B, G, R"
    )
    parser.add_argument("--root", default="", metavar="FOLDER/", help="is put in front of the paths of a list")
    parser.add_argument("--labels", metavar="FILE", help="the name of each class, one a line, such as labels.txt")
    parser.add_argument("--json", action="store_true", help="print JSON (schema 1)")
    converting.add_threads(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is there; return 1 where something is damaged. Raises ParatrainError."""
    if arguments.sheet is not None and not arguments.sheet.lower().endswith(".png"):
        arguments.parser.error(f"--sheet {arguments.sheet}: the name must end in .png")
    names = _class_names(arguments.labels)
    with converting.tool_run(), open_contents(arguments.path, arguments.root) as opened:
        if isinstance(opened, Contents):
            found = opened
            if arguments.sheet is not None:
                raise DataError(
                    f"{arguments.path}: no contact sheet can be drawn of a {found.kind}: it holds no images"
                )
        else:
            found = _look(opened, arguments)
            if arguments.sheet is not None:
                _draw(opened, arguments, names)
    if arguments.json:
        print(json.dumps(contents_values(found), indent=2))
    else:
        print("\n".join(format_contents(found, names)))
        if arguments.sheet is not None:
            print(f"drawn to {arguments.sheet}")
    return 1 if found.damaged else 0


def _look(source: Source, arguments: argparse.Namespace) -> Contents:
    wanted = len(source) if arguments.check or len(source) <= _ALL_UP_TO else _SAMPLE_COUNT
    with Work(wanted, "records", log_every=0) as work:
        return look_through(source, spread(len(source), wanted), work, arguments.threads)


def _draw(source: Source, arguments: argparse.Namespace, names: list[str]) -> None:
    cells: list[tuple[npt.NDArray[Any] | None, str]] = []
    for index in spread(len(source), arguments.sheet_count):
        try:
            record = source.parse(source.fetch(index))
        except DataError:
            cells.append((None, f"{index}: damaged"))
            continue
        is_swapped = arguments.rgb and len(record.pixels) == 3
        caption = "" if record.label is None else label_name(record.label, names, number=False)
        cells.append((record.pixels[::-1] if is_swapped else record.pixels, caption))
    write_atomically(arguments.sheet, images.encode(draw_sheet(cells), "png"))


def _class_names(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the class names cannot be read ({error})") from None
