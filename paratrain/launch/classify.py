"""``paratrain classify``: what a net says of images."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError, ShapeMismatchError
from paratrain.launch import image_options, options
from paratrain.log import init_log
from paratrain.net import Net
from paratrain.tools.image_arrays import load_image
from paratrain.tools.image_nets import image_input, predict
from paratrain.tools.net_inputs import Transformer
from paratrain.tools.picture_files import find_images, read_array, read_labels, write_array

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

_EXAMPLES = """\
  paratrain classify cat.jpg --model_def deploy.prototxt --pretrained_model net.caffemodel --labels_file labels.txt
  paratrain classify images/china scores.npy --model deploy.prototxt --weights net.caffemodel --ext jpg --center_only
"""

_CHUNK = 32
"""Images that are read at a time."""

Scores = npt.NDArray[np.float32]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "classify",
        "say what images show, by a trained net",
        "Give images to a net and print its best classes, or write all that its first output says: an array (images, "
        "classes) of the mean over ten crops of each image. The flags are those of Caffe's classify.py.",
        _EXAMPLES,
    )
    parser.add_argument(
        "input_file", metavar="INPUT", help="an image, a folder of images, or an array .npy (N, H, W, K)"
    )
    parser.add_argument(
        "output_file",
        metavar="OUTPUT",
        nargs="?",
        help="the .npy file to write (default: the best classes are printed)",
    )
    image_options.add_net(parser)
    parser.add_argument(
        "--center_only", action="store_true", help="only the crop in the middle, not the mean over ten crops"
    )
    parser.add_argument(
        "--images_dim", type=_size, default=(256, 256), metavar="H,W",
        help="the size that images are resized to before crops are taken (default: 256,256)",
    )  # fmt: skip
    image_options.add_preparation(parser)
    parser.add_argument("--ext", default="jpg", help="the ending of the images in a folder (default: jpg)")
    parser.add_argument("--labels_file", metavar="FILE", help="the names of the classes, one on each line")
    parser.add_argument("--print_results", action="store_true", help="print the best classes also with an OUTPUT")
    parser.add_argument("--top", type=options.positive, default=5, metavar="N", help="classes to print (default: 5)")
    image_options.add_computing(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Classify the images; return the exit code. Raises ParatrainError."""
    init_log(logging.WARNING)
    names, arrays = _inputs(arguments)
    labels = read_labels(arguments.labels_file) if arguments.labels_file else None
    with contextlib.closing(image_options.open_net(arguments, arguments.model, arguments.weights)) as net:
        transformer = image_options.read_transformer(net, arguments)
        _, _, *size = transformer.inputs[image_input(net)]
        if min(size[0] / arguments.images_dim[0], size[1] / arguments.images_dim[1]) < 0.5:
            logger.warning(
                "the net takes crops of %d x %d out of images of %d x %d, a small part of each; for whole images give "
                "--images_dim %d,%d", *size, *arguments.images_dim, *size,
            )  # fmt: skip
        begin = time.perf_counter()
        scores = np.concatenate(
            [
                _scores(net, transformer, names[start : start + _CHUNK], arrays, start, arguments)
                for start in range(0, len(names), _CHUNK)
            ]
        )
        elapsed_s = time.perf_counter() - begin
    rows = scores.reshape(len(scores), -1)
    if labels is not None and len(labels) != rows.shape[1]:
        raise ShapeMismatchError(
            f"{arguments.labels_file}: has {len(labels)} names, and the net {rows.shape[1]} classes"
        )
    if arguments.output_file is None or arguments.print_results:
        for name, row in zip(names, rows, strict=True):
            print(name)
            for index in np.argsort(-row, kind="stable")[: arguments.top]:
                print(f"  {row[index]:.5f}  {labels[index] if labels else f'class {index}'}")
    if arguments.output_file is not None:
        print(f"written to {write_array(arguments.output_file, scores)}: {scores.shape}")
    print(f"{len(names)} image{'s' * (len(names) > 1)} in {elapsed_s:.2f} s")
    return 0


def _inputs(arguments: argparse.Namespace) -> tuple[list[str], npt.NDArray[Any] | None]:
    """The names of the images; and they themselves, where an array holds them."""
    path = str(Path(arguments.input_file).expanduser())
    if path.endswith(".npy"):
        arrays = read_array(path)
        if arrays.ndim != 4 or not len(arrays):
            raise DataError(f"{path}: expected images (N, H, W, K), found an array of the shape {arrays.shape}")
        if arrays.dtype == np.uint8:
            logger.warning("%s: holds whole numbers of 0 to 255; pixels of 0 to 1 are expected, or --raw_scale 1", path)
        return [f"{path}[{index}]" for index in range(len(arrays))], arrays
    return (find_images(path, arguments.ext) if Path(path).is_dir() else [path]), None


def _scores(
    net: Net,
    transformer: Transformer,
    names: list[str],
    arrays: npt.NDArray[Any] | None,
    start: int,
    arguments: argparse.Namespace,
) -> Scores:
    if arrays is None:
        color = transformer.inputs[image_input(net)][1] != 1
        images = [load_image(name, color) for name in names]
    else:
        images = list(arrays[start : start + len(names)])
    return predict(net, transformer, images, arguments.images_dim, not arguments.center_only)


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (options.positive(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 256,256 (height,width)") from None
    return height, width
