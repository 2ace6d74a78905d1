"""Convolution on the GPU: by cuDNN, or where that is missing or has no kernel by im2col and matrix products."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob, Memory
from paratrain.layers.base import register_layer
from paratrain.layers.convolution import ConvolutionLayer
from paratrain.layers.cupy.convolving import ConvolvingLayer
from paratrain.layers.depthwise_convolution import ConvolutionDepthwiseLayer, DepthwiseConvolutionLayer

__all__ = ["CupyConvolutionDepthwiseLayer", "CupyConvolutionLayer", "CupyDepthwiseConvolutionLayer"]


@register_layer("Convolution", backend="cupy")
class CupyConvolutionLayer(ConvolvingLayer, ConvolutionLayer):
    """Convolution in the precision of the backend, in the order that cuDNN prefers, with the ReLU that follows."""

    convolution_has_bias = True

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = self.can_arrange(bottom, top)
        weights, bias = self._parameters()
        slope = self.take_relu(self.is_capturable and bias is not None, with_backward=True)
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        kernel = self.choose_kernel()
        for below, above in zip(bottom, top, strict=True):
            x = self.copies.read(below.data_memory, kernel.bottom_form)
            kernel.forward(x, weights, bias, self.forms.write(above.data_memory, kernel.top_form), slope)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
            return
        weights, bias = self._parameters()
        kernel = self.kernel_with(weights=self.param_propagate_down[0], data=any(propagate_down))
        for above, below, down in zip(top, bottom, propagate_down, strict=True):
            dy = self.backward_to_product(above, kernel.top_form)
            if self.param_propagate_down[0]:
                accumulate = self.accumulates(0)
                weights_diff = self.blobs[0].diff_memory.mutable_device(self.forms.device)[: self.blobs[0].count]
                x = self.copies.read(below.data_memory, kernel.bottom_form)
                kernel.backward_weights(x, dy, weights_diff, accumulate=accumulate)
            if down:
                dx = self.forms.write(below.diff_memory, kernel.bottom_form)
                kernel.backward_data(dy, weights, bias, dx)

    def _parameters(self) -> tuple[Memory, Memory | None]:
        return self.blobs[0].data_memory, self.blobs[1].data_memory if len(self.blobs) > 1 else None


@register_layer("DepthwiseConvolution", backend="cupy")
class CupyDepthwiseConvolutionLayer(CupyConvolutionLayer, DepthwiseConvolutionLayer):
    """A Convolution in which each channel has kernels of its own."""


@register_layer("ConvolutionDepthwise", backend="cupy")
class CupyConvolutionDepthwiseLayer(CupyConvolutionLayer, ConvolutionDepthwiseLayer):
    """The name of DepthwiseConvolution in other forks."""
