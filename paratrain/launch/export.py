"""``paratrain export``: a network with its weights, for programs that know no Caffe."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path

from paratrain.backends import create_backend
from paratrain.check.data_shapes import known_shapes
from paratrain.launch import options
from paratrain.layers.base import LayerContext
from paratrain.log import init_log
from paratrain.net import Net
from paratrain.proto import TEST, NetParameter, filter_net, read_prototxt, upgrade_net, write_atomically
from paratrain.snapshot import load_weights
from paratrain.snapshot.convert import net_tensors, write_any
from paratrain.tools.onnx import DEFAULT_OPSET, brings_data, to_onnx, with_inputs
from paratrain.tools.onnx.graph import Size

__all__ = ["add_parser", "run"]

Shape = tuple[int, ...]

_EXAMPLES = """\
  paratrain export deploy.prototxt lenet_iter_5000.caffemodel --onnx lenet.onnx
  paratrain export train_val.prototxt lenet_iter_5000.caffemodel --onnx lenet.onnx --input-shape data=1,1,28,28
  paratrain export deploy.prototxt lenet_iter_5000.caffemodel --onnx any.onnx --batch any
  paratrain export deploy.prototxt lenet_iter_5000.caffemodel --npz lenet.npz
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "export",
        "write a network as an ONNX model, or its weights as NumPy arrays or safetensors",
        "Write the TEST phase of a network, with its weights, as a model of ONNX; its weights alone as NumPy's npz or as "
        "safetensors. Data layers become inputs, a SoftmaxWithLoss becomes a Softmax, other losses are left out.",
        _EXAMPLES,
    )
    options.add_model(parser)
    parser.add_argument(
        "weight_files", nargs="?", metavar="WEIGHTS", help="the weights; several with commas between them"
    )
    options.add(parser, "weights", metavar="A,B", help="the weights, in Caffe's spelling")
    options.add_copying(parser)
    parser.add_argument("--onnx", metavar="OUT", help="write an ONNX model to OUT")
    parser.add_argument("--npz", metavar="OUT", help="write the weights as NumPy arrays to OUT, which ends in .npz")
    parser.add_argument("--safetensors", metavar="OUT", help="write the weights to OUT, which ends in .safetensors")
    parser.add_argument(
        "--batch",
        type=_batch,
        metavar="N|any",
        help="the batch size of the ONNX model; any leaves it open (default: that of the prototxt)",
    )
    parser.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="BLOB",
        help="a blob that the ONNX model gives; may be given several times (default: those that no layer reads)",
    )
    parser.add_argument(
        "--opset",
        type=int,
        default=DEFAULT_OPSET,
        metavar="N",
        help=f"the version of ONNX's operators, 13 to 23 (default: {DEFAULT_OPSET})",
    )
    options.add_input_shape(parser)
    options.add_filters(parser)
    options.add_python(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the files that are asked for; return the exit code. Raises ParatrainError."""
    _check(arguments)
    init_log(logging.WARNING)
    net, notes = _open(arguments)
    if arguments.onnx is not None:
        batch_is_open = arguments.batch == "any"
        model = to_onnx(net, dynamic_batch=batch_is_open, outputs=arguments.output, opset=arguments.opset)
        write_atomically(arguments.onnx, model.data)
        notes += model.notes
    for note in notes:
        print(note)
    if arguments.onnx is not None:
        print(
            f"written to {arguments.onnx}: ONNX opset {arguments.opset}, {len(model.data):,} bytes; "
            f"inputs {_listed(model.inputs)}; outputs {_listed(model.outputs)}"
        )
    for path in (arguments.npz, arguments.safetensors):
        if path is not None:
            tensors = net_tensors(net)
            write_any(path, tensors)
            print(f"written to {path}: the weights of {len(tensors.layers)} layers")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Leave with a usage message where the options do not fit together."""
    error = arguments.parser.error
    if arguments.model is not None and arguments.file is not None and arguments.weight_files is None:
        arguments.file, arguments.weight_files = None, arguments.file  # -model NET WEIGHTS
    options.check_model(arguments)
    if arguments.weights is not None and arguments.weight_files is not None:
        error("give the weights once")
    if arguments.onnx is arguments.npz is arguments.safetensors is None:
        error("say what to write: --onnx OUT, --npz OUT or --safetensors OUT")
    for option, ending in (("npz", ".npz"), ("safetensors", ".safetensors")):
        path = getattr(arguments, option)
        if path is not None and not path.endswith(ending):
            error(f"--{option} {path}: the name must end in {ending}")
    if arguments.onnx is None and (arguments.output or arguments.batch is not None):
        error("--output and --batch go with --onnx")
    for path in (arguments.onnx, arguments.npz, arguments.safetensors):
        if path is not None and not Path(path).parent.is_dir():
            error(f"{path}: there is no folder {Path(path).parent}")


def _open(arguments: argparse.Namespace) -> tuple[Net, list[str]]:
    """Build the net with its weights, and say what is worth knowing of them."""
    parameter = upgrade_net(read_prototxt(arguments.file or arguments.model, NetParameter))
    parameter.state.phase = TEST
    options.set_state(parameter.state, arguments)
    filtered = filter_net(parameter, parameter.state)
    given = dict(arguments.input_shape)
    batch = arguments.batch if isinstance(arguments.batch, int) else None
    ready = with_inputs(filtered, _known(filtered, given), batch)
    net = Net(ready, LayerContext(create_backend("numpy"), TEST, allow_python=arguments.allow_python))
    files = arguments.weights or arguments.weight_files
    if files is None:
        return net, ["no weights are given: what the fillers make is exported"] if net.params else []
    rules = options.copy_rules(arguments)
    rules.check_net(net.params)
    names: list[str] = []
    for path in options.weight_files(files):
        names += load_weights(net, path, rules)
    rules.check_source(names)
    loaded = {rules.renames.get(name, name) for name in names}
    owners = {entry.layer_name for entry in net.parameters.entries}
    kept = [name for name in net.params if name not in loaded and name in owners]
    return net, [f"layer '{name}' is not in the weights: what its fillers make is exported" for name in kept]


def _known(net: NetParameter, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """``given``, and the shapes that the prototxt tells of data that need not be there."""
    known = dict(given)
    for layer in net.layer:
        shapes = known_shapes(layer, given) if brings_data(layer) and layer.type != "Input" else None
        known |= dict(zip(layer.top, shapes or (), strict=False))
    return known


def _listed(sizes: Mapping[str, Size]) -> str:
    return ", ".join(f"{name} {_shape(size)}" for name, size in sizes.items()) or "none"


def _shape(size: Size) -> str:
    lengths = zip(size.shape, size.varies, strict=True)
    return f"({', '.join('?' if varies else str(length) for length, varies in lengths)})"


def _batch(text: str) -> int | str:
    return text if text == "any" else options.positive(text)
