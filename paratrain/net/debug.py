"""The lines of ``debug_info: true``: the mean absolute value of every blob as forward, backward and update reach it.

Their wording is Caffe's (``net.cpp``). Nothing here runs unless ``debug_info`` is on.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from paratrain.layers.base import Layer
    from paratrain.net.net import Net

__all__ = ["backward", "data_means", "forward", "update", "whole_backward"]

logger = logging.getLogger(__name__)


def forward(net: Net, index: int) -> None:
    """Log the tops and the parameters of the layer that has just run forward."""
    if not logger.isEnabledFor(logging.INFO):
        return
    layer = net.layers[index]
    for name, blob in zip(net.top_names[layer.name], net.tops[index], strict=True):
        logger.info("    [Forward] Layer %s, top blob %s data: %g", layer.name, name, _mean(blob.read_data(None)))
    for param_index, blob in enumerate(layer.blobs):
        name = _display_name(layer, param_index)
        logger.info("    [Forward] Layer %s, param blob %s data: %g", layer.name, name, _mean(blob.read_data(None)))


def backward(net: Net, index: int) -> None:
    """Log the gradients that the layer, which has just run backward, has written and added to."""
    if not logger.isEnabledFor(logging.INFO):
        return
    layer = net.layers[index]
    flows = net.propagate_down[index]
    for name, blob, flow in zip(net.bottom_names[layer.name], net.bottoms[index], flows, strict=True):
        if flow:
            logger.info(
                "    [Backward] Layer %s, bottom blob %s diff: %g", layer.name, name, _mean(blob.read_diff(None))
            )
    for param_index, (blob, learns) in enumerate(zip(layer.blobs, layer.param_propagate_down, strict=True)):
        if learns:
            mean = _mean(blob.read_diff(None))
            logger.info("    [Backward] Layer %s, param blob %d diff: %g", layer.name, param_index, mean)


def whole_backward(net: Net) -> None:
    """Log the norms of all parameters, once backward has come to the start of the net."""
    if not logger.isEnabledFor(logging.INFO):
        return
    norms = [0.0] * 4
    for entry in net.parameters.entries:
        for index, values in enumerate((entry.blob.read_data(None), entry.blob.read_diff(None))):
            norms[index] += float(np.abs(values).sum(dtype=np.float64))
            norms[2 + index] += float(np.square(values, dtype=np.float64).sum())
    logger.info(
        "    [Backward] All net params (data, diff): L1 norm = (%g, %g); L2 norm = (%g, %g)",
        norms[0], norms[1], math.sqrt(norms[2]), math.sqrt(norms[3]),
    )  # fmt: skip


def data_means(net: Net) -> list[float]:
    """The mean absolute value of each parameter, for :func:`update`; taken before the update."""
    return [_mean(entry.blob.read_data(None)) for entry in net.parameters.entries]


def update(net: Net, means_before: list[float]) -> None:
    """Log each parameter as it was before the update, and in ``diff`` what the update has just subtracted from it.

    The users of a shared parameter get a line each, which names its owner.
    """
    owners = {id(entry.blob): (entry, mean) for entry, mean in zip(net.parameters.entries, means_before, strict=True)}
    users = {id(user): entry for entry in net.parameters.entries for user in entry.users}
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            diff, name = _mean(blob.read_diff(None)), _display_name(layer, index)
            if id(blob) in owners:
                _, data = owners[id(blob)]
                logger.info("    [Update] Layer %s, param %s data: %g; diff: %g", layer.name, name, data, diff)
            else:
                owner = users[id(blob)]
                owner_name = owner.name or str(owner.blob_index)
                logger.info(
                    "    [Update] Layer %s, param blob %s (owned by layer %s, param %s) diff: %g",
                    layer.name, name, owner.layer_name, owner_name, diff,
                )  # fmt: skip


def _display_name(layer: Layer, index: int) -> str:
    """The name by which a parameter is shared, or its number in the layer."""
    specs = layer.parameter.param
    return (specs[index].name if index < len(specs) else "") or str(index)


def _mean(values: Any) -> float:
    """The mean absolute value; 0 for a blob without values."""
    return float(np.abs(values).sum(dtype=np.float64)) / values.size if values.size else 0.0
