"""Where the flat arrays are cut for the exchange, and when backward is done with each slice."""

from __future__ import annotations

from dataclasses import dataclass

from paratrain.comm.exchange import Part
from paratrain.net import Net

__all__ = ["Slice", "find_slices"]


@dataclass(frozen=True)
class Slice:
    """The elements ``part`` of the flat arrays; their gradients are complete once backward has passed layer ``ready_at``."""

    part: Part
    ready_at: int


def find_slices(net: Net, element_count: int) -> list[Slice]:
    """Cut the learning parameters of ``net`` into slices of about ``element_count`` values, in the order of backward.

    Neighbours are joined until they make a slice, and large blobs are cut; only the last slices of all, those of the first
    layers, may be much smaller. A parameter that several layers share is ready when the first of them, which backward
    reaches last, is done: it lies where that layer's parameters lie.
    """
    layer_of_name = {name: index for index, name in enumerate(net.layer_names)}
    slices: list[Slice] = []
    stop = net.parameters.diff.count
    start = stop
    for entry in reversed(net.parameters.learning):
        start = entry.start
        ready_at = layer_of_name[entry.layer_name]
        while stop - start >= element_count:
            # What is left over stays at the start of the blob, and is joined with the blobs before it.
            slices.append(Slice((stop - element_count, stop), ready_at))
            stop -= element_count
    if start < stop:
        slices.append(Slice((start, stop), ready_at))
    return slices
