"""``--shuffle``: the order of the records, for who will not edit the net."""

from __future__ import annotations

import argparse
import logging

from paratrain.errors import SolverError
from paratrain.proto import NetParameter, filter_net

__all__ = ["add_shuffle", "shuffled"]

logger = logging.getLogger(__name__)

# The field of LayerParameter that says how each type of layer shuffles; that of HDF5Data has no windows: files are.
_SETTINGS = {"Data": "data_param", "ImageData": "image_data_param", "HDF5Data": "hdf5_data_param"}
_NONE, _FULL = -1, 0


def add_shuffle(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--shuffle",
        type=_mode,
        metavar="none|full|window:K",
        help="read the training data in another order each epoch: of all records, or within windows of K of them, for "
        "slow disks; none: as they lie. Without it the net's own settings hold",
    )


def shuffled(parameter: NetParameter, mode: int | None) -> NetParameter:
    """Return the layers of the net's state, ``shuffle`` and ``shuffle_window`` of those that bring data being what the option
    says. Where it is not given, None, the net stays as it is.

    Raises SolverError for a net that has no layer which can shuffle.
    """
    if mode is None:
        return parameter
    net = filter_net(parameter, parameter.state, report=logger.info)
    layers = [layer for layer in net.layer if layer.type in _SETTINGS]
    if not layers:
        raise SolverError(f"--shuffle is for layers of the types {', '.join(_SETTINGS)}, and the net has none")
    for layer in layers:
        settings = getattr(layer, _SETTINGS[layer.type])
        settings.shuffle = mode != _NONE
        if layer.type != "HDF5Data":
            settings.ClearField("shuffle_window")
            if mode > 0:
                settings.shuffle_window = mode
    return net


def _mode(text: str) -> int:
    """The window's records; 0 for all, -1 for no shuffling; for argparse."""
    kind, _, window = text.partition(":")
    if text in ("none", "full"):
        return _NONE if text == "none" else _FULL
    if kind == "window" and window.isdecimal() and 0 < int(window) < 1 << 32:
        return int(window)
    raise argparse.ArgumentTypeError(f"{text!r} is not none, full or window:K, K being a number of records")
