"""``paratrain detect``: what a net says of windows of images."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time

from paratrain.errors import DataError
from paratrain.launch import image_options, options
from paratrain.log import init_log
from paratrain.tools.image_nets import detect
from paratrain.tools.picture_files import read_windows, write_detections

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain detect windows.csv detections.csv --model_def deploy.prototxt --pretrained_model net.caffemodel --context_pad 0
  paratrain detect windows.csv detections.h5 --model deploy.prototxt --weights net.caffemodel --context_pad 0
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "detect",
        "say what windows of images show, by a trained net",
        "Cut windows out of images, warp them to the size of the net's input, and write what its first output says of "
        "each. The flags are those of Caffe's detect.py.",
        _EXAMPLES,
    )
    parser.add_argument(
        "input_file", metavar="INPUT", help="a .csv file of windows: filename,xmin,ymin,xmax,ymax, with this line first"
    )
    parser.add_argument("output_file", metavar="OUTPUT", help="the .csv or .h5 file to write")
    image_options.add_net(parser)
    parser.add_argument(
        "--crop_mode", choices=("list", "selective_search"), default="list",
        help="where windows come from: list, the file; selective_search is not there, and says what to do",
    )  # fmt: skip
    image_options.add_preparation(parser)
    parser.add_argument(
        "--context_pad", type=_not_negative, default=16, metavar="N",
        help="pixels of each crop, on each side, that show what lies around the window (default: 16; 0: none)",
    )  # fmt: skip
    image_options.add_computing(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Look at the windows; return the exit code. Raises ParatrainError."""
    init_log(logging.WARNING)
    if arguments.crop_mode == "selective_search" or arguments.input_file.lower().endswith(".txt"):
        raise DataError(
            "windows are not found by paratrain: selective search runs in MATLAB. Find them by another program and give "
            "a .csv file with the columns filename,xmin,ymin,xmax,ymax"
        )
    if not arguments.output_file.lower().endswith((".csv", ".h5", ".hdf5")):
        arguments.parser.error(f"{arguments.output_file}: the results are written as .csv or .h5")
    windows = read_windows(arguments.input_file)
    with contextlib.closing(image_options.open_net(arguments, arguments.model, arguments.weights)) as net:
        transformer = image_options.read_transformer(net, arguments)
        begin = time.perf_counter()
        detections = detect(net, transformer, windows, arguments.context_pad)
        elapsed_s = time.perf_counter() - begin
    write_detections(arguments.output_file, detections)
    print(
        f"written to {arguments.output_file}: {len(detections)} windows of {len(windows)} images in {elapsed_s:.2f} s"
    )
    return 0


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value
