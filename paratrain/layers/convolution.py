"""The Convolution layer."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.base import ConvolutionGeometry
from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import register_layer
from paratrain.layers.convolution_base import ConvolutionBase

__all__ = ["ConvolutionLayer"]


@register_layer("Convolution")
class ConvolutionLayer(ConvolutionBase):
    """Cross-correlates every bottom with the same learnable kernels and adds a bias for each output.

    Bottoms (batch axes ..., C, *spatial) with the channels at ``axis``, all of one shape; tops
    (batch axes ..., num_output, *output), output = (in + 2 pad - (dilation (kernel - 1) + 1)) // stride + 1.
    Blobs: weights (num_output, C / group, *kernel) and, unless ``bias_term`` is false, bias (num_output,).
    With ``group`` g, output channels are cut into g parts that each see one part of the input channels.
    Gradients: dx = the Deconvolution of dy with the same kernels; dW = x cross-correlated with dy, summed over the
    batch; db = sum of dy over batch and pixels.
    ``force_nd_im2col`` and ``engine`` choose between ways to compute in Caffe and change nothing here.
    """

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        weights = self.read(self.blobs[0])
        bias = self.read(self.blobs[1]) if len(self.blobs) > 1 else None
        for below, above in zip(bottom, top, strict=True):
            self._convolution.forward(self._batched(self.read(below)), weights, bias, self._batched(self.write(above)))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        for above, below, down in zip(top, bottom, propagate_down, strict=True):
            top_diff = self._batched(self.read_diff(above))
            if self.param_propagate_down[0]:
                weights_diff = self.write_diff(self.blobs[0])
                self._convolution.backward_weights(self._batched(self.read(below)), top_diff, weights_diff)
            if len(self.blobs) > 1 and self.param_propagate_down[1]:
                self._convolution.backward_bias(top_diff, self.write_diff(self.blobs[1]))
            if down:
                bottom_diff = self._batched(self.write_diff(below))
                self._convolution.backward_data(top_diff, self.read(self.blobs[0]), bottom_diff)

    def _weights_shape(self) -> tuple[int, ...]:
        return (self._output_channels, self._channels // self._groups, *self._sliding.kernel)

    def _make_geometry(self, bottom: Blob) -> tuple[ConvolutionGeometry, tuple[int, ...]]:
        sliding = self._sliding
        geometry = ConvolutionGeometry(
            batch=bottom.count_between(0, self._axis),
            channels=self._channels,
            spatial=bottom.shape[self._axis + 1 :],
            output_channels=self._output_channels,
            kernel=sliding.kernel,
            stride=sliding.stride,
            pad=sliding.pad,
            dilation=sliding.dilation,
            groups=self._groups,
        )
        output = geometry.output_spatial
        if any(size < 1 for size in output):
            padded = tuple(n + 2 * pad for n, pad in zip(geometry.spatial, sliding.pad, strict=True))
            raise self.error(
                f"the kernel {sliding.extent} (kernel_size {sliding.kernel}, dilation {sliding.dilation}) is larger than "
                f"{self.bottom_name(0)} {bottom.shape}, padded to {padded}",
                ShapeMismatchError,
            )
        return geometry, output
