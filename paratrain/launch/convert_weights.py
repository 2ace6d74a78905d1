"""``paratrain convert_weights``: weights from one kind of file to another."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from paratrain.errors import SnapshotError
from paratrain.launch import options
from paratrain.snapshot.convert import WEIGHT_ENDINGS, read_any, write_any

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain convert_weights lenet_iter_5000.caffemodel lenet.npz
  paratrain convert_weights lenet_iter_5000.caffemodel lenet.safetensors
  paratrain convert_weights lenet.safetensors back.caffemodel
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "convert_weights",
        "bring weights from one kind of file to another",
        "Read weights and write them as the kind of file that the ending of OUT names: "
        f"{', '.join(WEIGHT_ENDINGS)}. Parameter 0 of layer conv1 is called conv1/0 in npz and safetensors files.",
        _EXAMPLES,
    )
    parser.add_argument("input", metavar="IN", help="the weights, of any of these kinds")
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the file and print what it holds; return the exit code. Raises ParatrainError."""
    if not arguments.output.endswith(WEIGHT_ENDINGS):
        arguments.parser.error(f"{arguments.output}: the name must end in one of {', '.join(WEIGHT_ENDINGS)}")
    source, target = Path(arguments.input), Path(arguments.output)
    if source.exists() and target.exists() and source.samefile(target):
        raise SnapshotError(f"{target} is the same file as {source}; give it another name")
    tensors = read_any(source)
    if not tensors.layers:
        raise SnapshotError(f"{source}: holds no weights")
    write_any(target, tensors)
    print(f"written to {target}: {_summary(tensors.layers)}")
    return 0


def _summary(layers: Mapping[str, Mapping[int, object]]) -> str:
    arrays = sum(len(blobs) for blobs in layers.values())
    return f"{arrays} arrays of {len(layers)} layers"
