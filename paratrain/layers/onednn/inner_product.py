"""InnerProduct on oneDNN."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.onednn.inner_product import OneDnnInnerProduct
from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.inner_product import InnerProductLayer
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.layers.onednn.fusion import AppliesReLU

__all__ = ["OneDnnInnerProductLayer"]


@register_layer("InnerProduct", backend="onednn")
class OneDnnInnerProductLayer(AppliesReLU, OneDnnLayer[OneDnnInnerProduct], InnerProductLayer):
    """Inner products of plain arrays by oneDNN's matrix product."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self._choose_kernel(bottom[0])
        slope = self.take_relu(kernel is not None)
        if kernel is None:
            super().forward(bottom, top)
            return
        bias = self.blobs[1].data_memory.host() if len(self.blobs) > 1 else None
        weights = self.blobs[0].data_memory.host()
        y = top[0].data_memory.mutable_host()
        kernel.forward(bottom[0].data_memory.host(), weights, bias, y, slope)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest_kernel
        if kernel is None:
            super().backward(top, propagate_down, bottom)
            return
        dy = top[0].diff_memory.host()
        if self.param_propagate_down[0]:
            accumulate = self.accumulates(0)
            weights_diff = self.blobs[0].diff_memory.mutable_host()
            kernel.backward_weights(bottom[0].data_memory.host(), dy, weights_diff, accumulate=accumulate)
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            kernel.backward_bias(dy, self.blobs[1].diff_memory.mutable_host()[: self._outputs])
        if propagate_down[0]:
            weights = self.blobs[0].data_memory.host()
            kernel.backward_data(dy, weights, bottom[0].diff_memory.mutable_host())

    def _choose_kernel(self, bottom: Blob) -> OneDnnInnerProduct | None:
        if not bottom.count:
            return self.no_kernel()
        has_bias = len(self.blobs) > 1
        return self.kernel(
            self._samples,
            lambda: OneDnnInnerProduct(
                self.arranger, self._samples, self._inputs, self._outputs, self._transpose, has_bias
            ),
        )
