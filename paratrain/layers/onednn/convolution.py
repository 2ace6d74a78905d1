"""Convolution on oneDNN."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.onednn.convolution import OneDnnConvolution
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.convolution import ConvolutionLayer
from paratrain.layers.fused_relu import AppliesReLU
from paratrain.layers.onednn.base import OneDnnLayer

__all__ = ["OneDnnConvolutionLayer"]


@register_layer("Convolution", backend="onednn")
class OneDnnConvolutionLayer(AppliesReLU, OneDnnLayer[OneDnnConvolution], ConvolutionLayer):
    """Convolution over one to three spatial axes by oneDNN, in the layouts that it prefers."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self._choose_kernel(bottom, top)
        slope = self.take_relu(kernel is not None)
        if kernel is None:
            super().forward(bottom, top)
            return
        weights = self.blobs[0].data_memory.host()
        bias = self.blobs[1].data_memory.host() if len(self.blobs) > 1 else None
        for below, above in zip(bottom, top, strict=True):
            kernel.forward(self.copies, below.data_memory, weights, bias, above.data_memory, slope)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self._kernel_for_backward(any(propagate_down))
        if kernel is None or (not self.param_propagate_down[0] and any(self.param_propagate_down)):
            super().backward(top, propagate_down, bottom)
            return
        weights = self.blobs[0].data_memory.host()
        bias_learns = len(self.blobs) > 1 and self.param_propagate_down[1]
        for above, below, down in zip(top, bottom, propagate_down, strict=True):
            if self.param_propagate_down[0]:
                accumulate = self.accumulates(0)
                weights_diff = self.blobs[0].diff_memory.mutable_host()
                bias_diff = self.blobs[1].diff_memory.mutable_host()[: self._output_channels] if bias_learns else None
                kernel.backward_weights(
                    self.copies, below.data_memory, above.diff_memory, weights_diff, bias_diff, accumulate=accumulate
                )
            if down:
                kernel.backward_data(self.copies, above.diff_memory, weights, below.diff_memory)

    def _kernel_for_backward(self, propagates: bool) -> OneDnnConvolution | None:
        kernel = self.latest_kernel
        try:
            if kernel is not None:
                kernel.build_backward(weights=self.param_propagate_down[0], data=propagates)
        except UnsupportedError as error:
            self.give_up(error)
        return self.latest_kernel

    def _choose_kernel(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> OneDnnConvolution | None:
        geometry = self._geometry
        assert geometry is not None
        if not 1 <= len(geometry.spatial) <= 3 or not self.may_arrange(*top):
            return self.no_kernel()
        shape = (geometry.batch, geometry.channels, *geometry.spatial)
        layout = self.layout_of(bottom[0].data_memory, shape)
        has_bias = len(self.blobs) > 1
        return self.kernel(
            (geometry, layout),
            lambda: self.in_own_dtype(
                lambda dtype: OneDnnConvolution(self.arranger, geometry, has_bias, layout, dtype)
            ),
        )
