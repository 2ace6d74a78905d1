"""ReLU on oneDNN."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.onednn.relu import OneDnnReLU
from paratrain.blob import Blob
from paratrain.layers.activation import ReLULayer
from paratrain.layers.base import register_layer
from paratrain.layers.fused_relu import FusedReLU
from paratrain.layers.onednn.base import OneDnnLayer

__all__ = ["OneDnnReLULayer"]


@register_layer("ReLU", backend="onednn")
class OneDnnReLULayer(FusedReLU, OneDnnLayer[OneDnnReLU], ReLULayer):
    """ReLU in the layout that the bottom comes in; negative slopes below 0 are the plain layer's."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self._choose_kernel(bottom[0], top[0])
        if self.is_applied:
            self.is_applied = False
            return
        self.leaves_backward = False
        if kernel is None:
            super().forward(bottom, top)
        else:
            kernel.forward(self.copies, bottom[0].data_memory, top[0].data_memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest_kernel
        if self.leaves_backward:
            return
        if kernel is None:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            # The bottom, not the top: a layer behind may have worked in place on that.
            kernel.backward(self.copies, bottom[0].data_memory, top[0].diff_memory, bottom[0].diff_memory)

    def _choose_kernel(self, bottom: Blob, top: Blob) -> OneDnnReLU | None:
        if self._slope < 0 or not self.may_arrange(top):
            return self.no_kernel()
        arrangement = bottom.data_memory.arrangement
        # Value by value the shape of the blob does not matter, only the order in memory.
        is_whole = arrangement is not None and arrangement.layout.count == bottom.count
        layout = arrangement.layout if is_whole else self.arranger.plain((bottom.count,))
        return self.kernel(
            layout, lambda: self.in_dtype(layout, lambda found: OneDnnReLU(self.arranger, found, self._slope))
        )
