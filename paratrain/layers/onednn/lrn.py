"""LRN on oneDNN."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.base import LocalResponseGeometry
from paratrain.backends.onednn.lrn import OneDnnLocalResponseNormalization
from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.lrn import LRNLayer
from paratrain.layers.onednn.base import OneDnnLayer

__all__ = ["OneDnnLRNLayer"]


@register_layer("LRN", backend="onednn")
class OneDnnLRNLayer(OneDnnLayer[OneDnnLocalResponseNormalization], LRNLayer):
    """LRN across channels; within channels, and sizes without a kernel, are the plain layer's."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self._choose_kernel(bottom[0], top[0])
        if kernel is None:
            super().forward(bottom, top)
        else:
            kernel.forward(self.copies, bottom[0].data_memory, top[0].data_memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest_kernel
        if kernel is None:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            kernel.backward(self.copies, bottom[0].data_memory, top[0].diff_memory, bottom[0].diff_memory)

    def _choose_kernel(self, bottom: Blob, top: Blob) -> OneDnnLocalResponseNormalization | None:
        if self._within or not self.may_arrange(top):
            return self.no_kernel()
        parameter = self.parameter.lrn_param
        geometry = LocalResponseGeometry(
            bottom.shape, parameter.local_size, parameter.alpha, parameter.beta, parameter.k
        )
        layout = self.layout_of(bottom.data_memory, bottom.shape)
        return self.kernel(
            (bottom.shape, layout),
            lambda: self.in_dtype(
                layout, lambda found: OneDnnLocalResponseNormalization(self.arranger, geometry, found)
            ),
        )
