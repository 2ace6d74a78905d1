"""What ``classify``, ``detect`` and ``extract_features`` share: a net of one process, and how images are prepared for it."""

from __future__ import annotations

import argparse

from paratrain.backends import BACKENDS
from paratrain.data.options import DataOptions
from paratrain.errors import CommunicationError
from paratrain.launch import options
from paratrain.launch.abort import connect
from paratrain.launch.computing import open_alone
from paratrain.launch.cores import take_cores
from paratrain.layers.base import LayerContext
from paratrain.net import CopyRules, Net
from paratrain.proto import TEST, NetParameter, NetState, read_prototxt, upgrade_net
from paratrain.random import entropy
from paratrain.snapshot import load_all_weights
from paratrain.tools.image_nets import create_transformer, image_input
from paratrain.tools.net_inputs import Transformer
from paratrain.tools.picture_files import read_channel_means

__all__ = ["add_computing", "add_net", "add_preparation", "open_net", "read_transformer"]

_COLOURS = 3


def add_net(parser: argparse.ArgumentParser) -> None:
    """Add the net and its weights, in the spellings of pycaffe's scripts and in those of the other verbs."""
    parser.add_argument(
        "--model_def", "-model", "--model", dest="model", required=True, metavar="FILE",
        help="the net's deploy prototxt, in which an Input layer takes the images",
    )  # fmt: skip
    parser.add_argument(
        "--pretrained_model", "-weights", "--weights", dest="weights", required=True, metavar="FILE",
        help="the trained weights",
    )  # fmt: skip


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add what the net computes with, and what it may do."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--gpu", action="store_true", help="compute on a GPU, or say why not (default: where there is one)"
    )
    where.add_argument("--cpu", action="store_true", help="compute on the CPU")
    parser.add_argument("--backend", choices=BACKENDS.names(), help="what computes, see paratrain train --help")
    parser.add_argument(
        "--threads", type=options.positive, metavar="N", help="threads that compute (default: all cores)"
    )
    options.add_python(parser)


def add_preparation(parser: argparse.ArgumentParser) -> None:
    """Add how images become what the net takes."""
    parser.add_argument(
        "--mean_file", default="", metavar="FILE",
        help="the mean image, .npy or .binaryproto, of which the mean of each channel is subtracted (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--input_scale", type=float, metavar="X", help="what everything is multiplied by in the end (default: 1)"
    )
    parser.add_argument(
        "--raw_scale", type=float, default=255.0, metavar="X",
        help="what pixels of 0 to 1 are multiplied by before the mean is subtracted (default: 255)",
    )  # fmt: skip
    parser.add_argument(
        "--channel_swap", type=_numbers, metavar="2,1,0",
        help="the order of the channels (default: 2,1,0, blue green red, for nets of three channels)",
    )  # fmt: skip


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")] if text.strip() else []
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2,1,0") from None


def open_net(arguments: argparse.Namespace, model: str, weights: str) -> Net:
    """Open the TEST phase of a net with its weights, in one process. Raises ParatrainError."""
    communicator = connect()
    if communicator.size > 1:
        raise CommunicationError(f"paratrain {arguments.verb} is run by one process, without mpirun")
    cores = take_cores(communicator, arguments.threads, pin=False)
    asked = argparse.Namespace(**{"precision": None, "fast": False, "autotune": False, **vars(arguments)})
    # One process takes the first of all. Caffe's extract_features may be told a number.
    asked.gpu = arguments.gpu if isinstance(arguments.gpu, str) else "all" if arguments.gpu else None
    backend = open_alone(asked)
    parameter = upgrade_net(read_prototxt(model, NetParameter))
    parameter.state.MergeFrom(NetState(phase=TEST))
    context = LayerContext(
        backend,
        TEST,
        seed=entropy(),
        allow_python=arguments.allow_python,
        data=options.data_options(arguments, cores[0].worker_count) if "data_workers" in arguments else DataOptions(),
    )
    net = Net(parameter, context)
    try:
        load_all_weights(net, options.weight_files(weights), CopyRules())
    except BaseException:
        net.close()
        raise
    return net


def read_transformer(net: Net, arguments: argparse.Namespace) -> Transformer:
    """What the options of :func:`add_preparation` say. Raises NetError, DataError, ShapeMismatchError."""
    channel_count = net.blobs[image_input(net)].shape[1]
    swap = arguments.channel_swap
    if swap is None and channel_count == _COLOURS:
        swap = [2, 1, 0]
    mean = read_channel_means(arguments.mean_file, channel_count) if arguments.mean_file else None
    return create_transformer(
        net, mean=mean, input_scale=arguments.input_scale, raw_scale=arguments.raw_scale, channel_swap=swap or None
    )
