"""Deconvolution on the GPU: its convolution, run backwards."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.cupy.convolving import ConvolvingLayer
from paratrain.layers.deconvolution import DeconvolutionLayer

__all__ = ["CupyDeconvolutionLayer"]


@register_layer("Deconvolution", backend="cupy")
class CupyDeconvolutionLayer(ConvolvingLayer, DeconvolutionLayer):
    """Deconvolution over one to three spatial axes in the precision of the backend, in the order that cuDNN prefers, with the
    bias and the ReLU that follows.
    """

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = self.can_arrange(bottom, top)
        slope = self.take_relu(self.is_capturable, with_backward=True)
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        kernel = self.kernel_with(weights=False, data=True)
        for index, (below, above) in enumerate(zip(bottom, top, strict=True)):
            x = self.copies.read(below.data_memory, kernel.top_form, f"x {index}")
            y = self.forms.write(above.data_memory, kernel.bottom_form)
            kernel.backward_data(x, self.blobs[0].data_memory, None, y)
            self.bias.add(y, kernel.bottom_form, self.bias_data, slope)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
            return
        kernel = self.kernel_with(weights=self.param_propagate_down[0], data=True)
        for index, (above, below, down) in enumerate(zip(top, bottom, propagate_down, strict=True)):
            dy = self.backward_to_product(above, kernel.bottom_form)
            if self.param_propagate_down[0]:
                x = self.copies.read(below.data_memory, kernel.top_form, f"x {index}")
                accumulate = self.accumulates(0)
                weights_diff = self.blobs[0].diff_memory.mutable_device(self.forms.device)[: self.blobs[0].count]
                kernel.backward_weights(dy, x, weights_diff, accumulate=accumulate)
            if down:
                kernel.forward(
                    dy, self.blobs[0].data_memory, None, self.forms.write(below.diff_memory, kernel.top_form)
                )
