"""Pooling on oneDNN."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.onednn.pooling import OneDnnPooling
from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.layers.pooling import PoolingLayer

__all__ = ["OneDnnPoolingLayer"]


@register_layer("Pooling", backend="onednn")
class OneDnnPoolingLayer(OneDnnLayer[OneDnnPooling], PoolingLayer):
    """MAX and AVE pooling in the layout that the bottom comes in; a second top, STOCHASTIC, and averages of windows that reach
    over padded edges are the plain layer's.
    """

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self._choose_kernel(bottom[0], top)
        if kernel is None:
            super().forward(bottom, top)
        else:
            kernel.forward(self.copies, bottom[0].data_memory, top[0].data_memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest_kernel
        if kernel is None:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            kernel.backward(self.copies, top[0].diff_memory, bottom[0].diff_memory)

    def _choose_kernel(self, bottom: Blob, top: Sequence[Blob]) -> OneDnnPooling | None:
        geometry = self._geometry
        assert geometry is not None
        if len(top) > 1 or not self.may_arrange(*top):
            return self.no_kernel()
        layout = self.layout_of(bottom.data_memory, bottom.shape)
        return self.kernel(
            (geometry, layout),
            lambda: self.in_dtype(layout, lambda found: OneDnnPooling(self.arranger, geometry, found)),
        )
