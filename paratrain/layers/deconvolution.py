"""The Deconvolution layer: a convolution run backwards."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.base import ConvolutionGeometry
from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import register_layer
from paratrain.layers.convolution_base import ConvolutionBase

__all__ = ["DeconvolutionLayer"]


@register_layer("Deconvolution")
class DeconvolutionLayer(ConvolutionBase):
    """Every value of the bottom adds its kernel, times itself, to the top: the gradient of a Convolution by its bottom.

    Bottoms (batch axes ..., C, *spatial) with the channels at ``axis``, all of one shape; tops
    (batch axes ..., num_output, *output), output = stride (in - 1) + dilation (kernel - 1) + 1 - 2 pad.
    Blobs: weights (C, num_output / group, *kernel) and, unless ``bias_term`` is false, bias (num_output,).
    With K the Convolution from the tops' shape to the bottoms' with these weights: y = K^T x + b, dx = K dy,
    dW = the gradient of K by its weights for the bottom dy and the top gradient x, db = sum of dy over images and pixels.
    ``force_nd_im2col`` and ``engine`` choose between ways to compute in Caffe and change nothing here.
    Source: Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", 2015.
    """

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        weights = self.read(self.blobs[0])
        for below, above in zip(bottom, top, strict=True):
            y = self._batched(self.write(above))
            self._convolution.backward_data(self._batched(self.read(below)), weights, y)
            if len(self.blobs) > 1:
                y += self.read(self.blobs[1]).reshape(-1, *(1,) * len(self._sliding.kernel))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        for above, below, down in zip(top, bottom, propagate_down, strict=True):
            top_diff = self._batched(self.read_diff(above))
            if self.param_propagate_down[0]:
                weights_diff = self.write_diff(self.blobs[0])
                self._convolution.backward_weights(top_diff, self._batched(self.read(below)), weights_diff)
            if len(self.blobs) > 1 and self.param_propagate_down[1]:
                bias_diff = self.write_diff(self.blobs[1])
                bias_diff += top_diff.sum(axis=(0, *range(2, top_diff.ndim)))
            if down:
                bottom_diff = self._batched(self.write_diff(below))
                self._convolution.forward(top_diff, self.read(self.blobs[0]), None, bottom_diff)

    def _weights_shape(self) -> tuple[int, ...]:
        return (self._channels, self._output_channels // self._groups, *self._sliding.kernel)

    def _make_geometry(self, bottom: Blob) -> tuple[ConvolutionGeometry, tuple[int, ...]]:
        sliding = self._sliding
        spatial = bottom.shape[self._axis + 1 :]
        sizes = zip(spatial, sliding.extent, sliding.stride, sliding.pad, strict=True)
        output = tuple(stride * (n - 1) + extent - 2 * pad for n, extent, stride, pad in sizes)
        if any(size < 1 for size in output):
            raise self.error(
                f"pad {sliding.pad} takes away the whole top, {output}: {self.bottom_name(0)} is {bottom.shape}, the kernel "
                f"{sliding.extent} (kernel_size {sliding.kernel}, dilation {sliding.dilation}), stride {sliding.stride}",
                ShapeMismatchError,
            )
        geometry = ConvolutionGeometry(
            batch=bottom.count_between(0, self._axis),
            channels=self._output_channels,
            spatial=output,
            output_channels=self._channels,
            kernel=sliding.kernel,
            stride=sliding.stride,
            pad=sliding.pad,
            dilation=sliding.dilation,
            groups=self._groups,
        )
        return geometry, output
