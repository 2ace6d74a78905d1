"""What scripts have asked to be called before and after each layer of a pass (pycaffe's ``net.before_forward`` and so on)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from paratrain.blob import Blob, SyncedMemory

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["LayerCallback", "LayerCallbacks", "settle"]

LayerCallback = Callable[[int], object]
"""Is given the number of the layer in ``net.layers``, whose name is ``net._layer_names[number]``."""


def settle(blobs: Iterable[Blob]) -> None:
    """Bring the newest values of blobs to the plain arrays that scripts hold of them."""
    for blob in blobs:
        for memory in (blob.data_memory, blob.diff_memory):
            if isinstance(memory, SyncedMemory):
                memory.settle()


class LayerCallbacks:
    """Functions to call around the layers of a net; as long as there are some, every layer computes on its own."""

    def __init__(self) -> None:
        self.before_forward: list[LayerCallback] = []
        self.after_forward: list[LayerCallback] = []
        self.before_backward: list[LayerCallback] = []
        self.after_backward: list[LayerCallback] = []

    def __bool__(self) -> bool:
        return bool(self.before_forward or self.after_forward or self.before_backward or self.after_backward)

    def forward(self, net: Net, index: int) -> float:
        """Run a layer forward between the functions; return its part of the loss."""
        for callback in self.before_forward:
            callback(index)
        loss = net.forward_layer(index)
        settle(net.tops[index])
        for callback in self.after_forward:
            callback(index)
        return loss

    def backward(self, net: Net, index: int) -> None:
        """Run a layer backward between the functions, which are also called for layers that need none, as in Caffe."""
        for callback in self.before_backward:
            callback(index)
        net.backward_layer(index)
        settle(net.bottoms[index])
        for callback in self.after_backward:
            callback(index)
