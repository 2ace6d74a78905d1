"""Nets that are too large are refused while they are read, before memory is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratrain.blob.limits import check_bytes, format_bytes
from paratrain.errors import NetError
from paratrain.proto import TRAIN, NetParameter
from paratrain.proto.limits import LARGEST_LAYER_COUNT

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["check_layer_count", "check_memory"]


def check_layer_count(parameter: NetParameter) -> None:
    """Raise NetError for more than LARGEST_LAYER_COUNT layers."""
    if len(parameter.layer) > LARGEST_LAYER_COUNT:
        raise NetError(
            f"network '{parameter.name}' has {len(parameter.layer):,} layers; paratrain takes at most {LARGEST_LAYER_COUNT:,}"
        )


def check_memory(net: Net) -> None:
    """Raise NetError where the data of all blobs, or in TRAIN the parameters and their gradients, exceed the memory left.

    Memory that blobs share counts once, and where the net plans its memory, places that they take in turn do. A GPU's memory
    is its own affair.
    """
    if net.context.backend.device is not None:
        return
    data = {id(blob.data_memory): blob for tops in net.tops for blob in tops}
    sizes = {id(blob): blob.count * blob.dtype.itemsize for blob in data.values()}
    names = {id(blob): name for name, blob in net.blobs.items()}
    largest = max(data.values(), key=lambda blob: blob.count, default=None)
    hint = f" (the largest: '{names.get(id(largest), '')}' {largest.shape})" if largest is not None else ""
    what = f"the data of the {len(sizes)} blobs of network '{net.name}'{hint}"
    try:
        check_bytes(sum(sizes.values()), what)
    except NetError:
        if net.memory_plan is None:
            raise
        check_bytes(net.memory_plan.needed_bytes(), what)
    if net.phase == TRAIN:
        # The values lie there already, scattered; training moves them to one array and adds another for the gradients.
        count = sum(entry.blob.count * entry.blob.dtype.itemsize for entry in net.parameters.entries)
        check_bytes(2 * count, f"the parameters of network '{net.name}', {format_bytes(count)}, and their gradients")
