"""InnerProduct on oneDNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends.onednn.inner_product import OneDnnInnerProduct
from paratrain.backends.onednn.names import DataType
from paratrain.blob import Blob, Memory
from paratrain.layers.base import register_layer
from paratrain.layers.fused_relu import AppliesReLU
from paratrain.layers.inner_product import InnerProductLayer
from paratrain.layers.onednn.base import OneDnnLayer

__all__ = ["OneDnnInnerProductLayer"]


_FEW_SAMPLES = 32
"""Products of so few are float32's always: to read the weights is most of their time, and rounding them first takes as long."""
_MOST_AXES = 5


@register_layer("InnerProduct", backend="onednn")
class OneDnnInnerProductLayer(AppliesReLU, OneDnnLayer[OneDnnInnerProduct], InnerProductLayer):
    """Inner products by oneDNN's matrix product. Tops and gradients are plain; where products are bfloat16's, bottoms and the
    tops' gradients are rounded for them.
    """

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self._choose_kernel(bottom[0])
        slope = self.take_relu(kernel is not None)
        if kernel is None:
            super().forward(bottom, top)
            return
        bias = self.blobs[1].data_memory.host() if len(self.blobs) > 1 else None
        weights = self.blobs[0].data_memory.host()
        y = top[0].data_memory.mutable_host()
        kernel.forward(self._factor(kernel, bottom[0], bottom[0].data_memory, "x"), weights, bias, y, slope)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest_kernel
        if kernel is None:
            super().backward(top, propagate_down, bottom)
            return
        dy = self._factor(kernel, top[0], top[0].diff_memory, "dy")
        if self.param_propagate_down[0]:
            accumulate = self.accumulates(0)
            weights_diff = self.blobs[0].diff_memory.mutable_host()
            x = self._factor(kernel, bottom[0], bottom[0].data_memory, "x")
            kernel.backward_weights(x, dy, weights_diff, accumulate=accumulate)
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            kernel.backward_bias(top[0].diff_memory.host(), self.blobs[1].diff_memory.mutable_host()[: self._outputs])
        if propagate_down[0]:
            weights = self.blobs[0].data_memory.host()
            kernel.backward_data(dy, weights, bottom[0].diff_memory.mutable_host())

    def _choose_kernel(self, bottom: Blob) -> OneDnnInnerProduct | None:
        if not bottom.count:
            return self.no_kernel()
        sizes = (self._samples, self._inputs, self._outputs, self._transpose, len(self.blobs) > 1)
        if self._samples <= _FEW_SAMPLES:
            return self.kernel(self._samples, lambda: OneDnnInnerProduct(self.arranger, *sizes))
        return self.kernel(
            self._samples,
            lambda: self.in_own_dtype(lambda dtype: OneDnnInnerProduct(self.arranger, *sizes, dtype)),
        )

    def _factor(self, kernel: OneDnnInnerProduct, blob: Blob, memory: Memory, purpose: str) -> Any:
        """The values of a blob's memory in plain order, in the type of the kernel's factors."""
        if kernel.dtype == DataType.F32:
            return memory.host()
        layout = self.arranger.plain(blob.shape if blob.axis_count <= _MOST_AXES else (blob.count,)).cast(kernel.dtype)
        assert layout is not None
        return self.copies.read(memory, layout, purpose)
