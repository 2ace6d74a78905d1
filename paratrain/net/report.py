"""What a net says in the log while it is built: the lines of Caffe's ``net.cpp``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paratrain.blob import Blob
from paratrain.layers.base import Layer
from paratrain.proto import NetParameter, NetState, format_prototxt

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["describe", "finish", "layer"]


def describe(logger: logging.Logger, parameter: NetParameter, state: NetState) -> None:
    """Print the net that is going to be built, without weights."""
    if logger.isEnabledFor(logging.INFO):
        shown = NetParameter()
        shown.CopyFrom(parameter)
        shown.state.CopyFrom(state)
        for layer_parameter in shown.layer:
            layer_parameter.ClearField("blobs")
        logger.info("Initializing net from parameters: \n%s", format_prototxt(shown))


def layer(logger: logging.Logger, layer: Layer, tops: Sequence[Blob], net: Net) -> None:
    """Print the shapes a layer has given its tops, its loss weights, and the memory that data takes so far."""
    if not logger.isEnabledFor(logging.INFO):
        return
    logger.info("Setting up %s", layer.name)
    for top, weight in zip(tops, layer.loss_weights, strict=True):
        logger.info("Top shape: %s", "".join(f"{axis} " for axis in top.shape) + f"({top.count})")
        if weight:
            logger.info("    with loss weight %g", weight)
    bytes_so_far = sum(blob.count * blob.dtype.itemsize for made in net.tops for blob in made)
    logger.info("Memory required for data: %d", bytes_so_far)


def finish(logger: logging.Logger, output_names: Sequence[str]) -> None:
    """Print what comes out of the net."""
    for name in output_names:
        logger.info("This network produces output %s", name)
    logger.info("Network initialization done.")
