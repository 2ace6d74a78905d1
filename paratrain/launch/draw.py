"""``paratrain draw``: a picture of a network, as Caffe's draw_net.py makes it."""

from __future__ import annotations

import argparse
from pathlib import Path

from paratrain.check.caffe_graph import DIRECTIONS, build_caffe_graph, caffe_graph_to_dot
from paratrain.check.draw_caffe import PICTURE_FORMATS, render
from paratrain.launch import options
from paratrain.proto import NetParameter, Phase, read_prototxt, write_atomically

__all__ = ["add_parser", "run"]

_TEXT = ("dot", "gv", "raw")

_EXAMPLES = """\
  paratrain draw net.prototxt net.png
  paratrain draw train_val.prototxt net.svg --rankdir TB --phase TRAIN --display_lrm
  paratrain draw net.prototxt net.dot      (for graphviz)
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "draw",
        "draw a network: layers and blobs",
        "Draw the layers and blobs of a net with arrows along the data, without graphviz. The net need not be correct; "
        "`paratrain check FILE --draw` shows shapes as well. The flags are those of Caffe's draw_net.py.",
        _EXAMPLES,
    )
    parser.add_argument("input_net_proto_file", metavar="NET", help="the net prototxt")
    parser.add_argument(
        "output_image_file", metavar="PICTURE", help=f"the file to write: .{', .'.join(PICTURE_FORMATS)} or .dot"
    )
    parser.add_argument(
        "--rankdir", choices=DIRECTIONS, default="LR",
        help="where the data flows: LR left to right (default), RL, TB top to bottom, BT",
    )  # fmt: skip
    parser.add_argument(
        "--phase", choices=("TRAIN", "TEST", "ALL"), default="ALL", help="the layers of this phase only (default: ALL)"
    )
    parser.add_argument("--display_lrm", action="store_true", help="write lr_mult into the layers that learn")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw the net; return the exit code. Raises ParatrainError."""
    path = arguments.output_image_file
    form = Path(path).suffix[1:].lower()
    if form not in (*PICTURE_FORMATS, *_TEXT):
        arguments.parser.error(f"{path}: the name must end in .{', .'.join(PICTURE_FORMATS)} or .dot")
    graph = build_caffe_graph(
        read_prototxt(arguments.input_net_proto_file, NetParameter),
        arguments.rankdir,
        phase=None if arguments.phase == "ALL" else Phase.Value(arguments.phase),
        display_lrm=arguments.display_lrm,
    )
    write_atomically(path, caffe_graph_to_dot(graph).encode() if form in _TEXT else render(graph, form))
    print(f"drawn to {path}")
    return 0
