"""Convolution by oneDNN, on blobs in whatever layout suits it."""

from __future__ import annotations

import math

import numpy as np

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.onednn.arranged import Arranger, Copies
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import Algorithm, Argument, DataType, PropKind
from paratrain.backends.onednn.primitive import Array, Descriptor, Primitive, aligned, best
from paratrain.blob import Memory

__all__ = ["OneDnnConvolution"]

_MOST_PADDING = 1.2
"""Where filling the channels up to whole blocks would multiply the work by more than this, they are kept last instead."""
_FEW_CHANNELS = 4
"""So few channels are read as they lie in a plain array: images."""


class OneDnnConvolution:
    """The convolution of one geometry and its gradients, each as one primitive.

    Weights and their gradients are Caffe's plain arrays, (output_channels, channels / groups, *kernel) seen flat: they are
    brought into the primitive's layout each time, which costs little, and gradients are added where they belong.
    With ``dtype`` BF16 bottoms, tops and their gradients are bfloat16, and weights are rounded to it; gradients of weights,
    biases and all sums are float32. Raises UnsupportedError where oneDNN has no kernel; for gradients :meth:`build_backward`
    does.
    """

    def __init__(
        self,
        arranger: Arranger,
        geometry: ConvolutionGeometry,
        has_bias: bool,
        bottom_layout: Layout,
        dtype: DataType = DataType.F32,
    ) -> None:
        self._arranger, self._geometry, self._dtype = arranger, geometry, dtype
        self._has_bias = has_bias
        if len(geometry.spatial) == 3 and 2 * geometry.pad[0] > geometry.dilation[0] * (geometry.kernel[0] - 1):
            # The gradients of weights come out wrong, oneDNN 3.2 reads memory that is not its own, and may crash.
            raise UnsupportedError("convolution: more than half a kernel of padding before the first plane")
        g, library = geometry, arranger.engine.library
        self.bottom_shape = (g.batch, g.channels, *g.spatial)
        self.top_shape = (g.batch, g.output_channels, *g.output_spatial)
        kernel = (g.output_channels // g.groups, g.channels // g.groups, *g.kernel)
        weights_shape = (g.groups, *kernel) if g.groups > 1 else kernel
        self._plain_weights = arranger.plain(weights_shape)
        self._sizes = (g.stride, tuple(d - 1 for d in g.dilation), g.pad, g.pad)
        self._weights = Layout.any(library, weights_shape, dtype)
        self._weights_diff = Layout.any(library, weights_shape)
        self._bias = arranger.plain((g.output_channels,)) if has_bias else None
        is_image = g.channels <= _FEW_CHANNELS
        make = Layout.channels_last if self._pads_much(geometry, is_image) else Layout.any
        self._bottom, self._top = make(library, self.bottom_shape, dtype), make(library, self.top_shape, dtype)
        first = [Layout.plain(library, self.bottom_shape, dtype)] if is_image and bottom_layout.is_in_order else []
        self._hint = best([self._describe_forward(bottom) for bottom in (*first, self._bottom)])
        self.bottom_layout = self._hint.layout(Argument.SOURCE)
        self.top_layout = self._hint.layout(Argument.DESTINATION)
        self._forwards: dict[float | None, tuple[Primitive, Layout]] = {}
        self._backward_weights: tuple[Primitive, Layout, Layout, Layout] | None = None
        self._in_float32: OneDnnConvolution | None = None
        self._backward_data: tuple[Primitive, Layout, Layout, Layout] | None = None
        self._bias_diff = aligned(g.output_channels * 4).view(np.float32)

    def build_backward(self, *, weights: bool, data: bool) -> None:
        """Build the primitives of these gradients, unless they are there. Raises UnsupportedError where oneDNN has no kernel:
        with as much padding as a kernel, for one.
        """
        if weights and self._backward_weights is None and self._in_float32 is None:
            self._backward_weights = self._build_backward_weights()
        if data and self._backward_data is None:
            self._backward_data = self._build_backward_data()

    def forward(
        self,
        copies: Copies,
        bottom: Memory,
        weights: Array,
        bias: Array | None,
        top: Memory,
        relu_slope: float | None = None,
    ) -> None:
        """top = weights * bottom + bias, with ``relu_slope`` followed by a ReLU of this negative slope."""
        if relu_slope not in self._forwards:
            self._forwards[relu_slope] = self._build_forward(relu_slope)
        primitive, weights_layout = self._forwards[relu_slope]
        x = copies.read(bottom, self.bottom_layout)
        w = self._arrange_weights(weights, weights_layout)
        y = self._arranger.write(top, self.top_layout)
        if bias is None:
            primitive.run(x, w, y)
        else:
            primitive.run(x, w, y, bias)

    def backward_weights(
        self,
        copies: Copies,
        bottom: Memory,
        top_diff: Memory,
        weights_diff: Array,
        bias_diff: Array | None,
        *,
        accumulate: bool = True,
    ) -> None:
        """weights_diff and bias_diff (unless it is None) += the gradients by the weights and the bias.

        Without ``accumulate`` that by the weights is written; the bias's, which is small, is always added.
        """
        self.build_backward(weights=True, data=False)
        if self._in_float32 is not None:
            self._in_float32.backward_weights(copies, bottom, top_diff, weights_diff, bias_diff, accumulate=accumulate)
            return
        assert self._backward_weights is not None
        primitive, bottom_layout, top_layout, weights_layout = self._backward_weights
        x, dy = copies.read(bottom, bottom_layout), copies.read(top_diff, top_layout, "diff")
        dw = self._arranger.lent(weights_layout.size_bytes)
        if self._has_bias:
            primitive.run(x, dy, dw, self._bias_diff)
            if bias_diff is not None:
                np.add(bias_diff, self._bias_diff, out=bias_diff)
        else:
            primitive.run(x, dy, dw)
        self._arranger.reorder(dw, weights_layout, weights_diff, self._plain_weights, accumulate=accumulate)

    def backward_data(self, copies: Copies, top_diff: Memory, weights: Array, bottom_diff: Memory) -> None:
        """bottom_diff = the gradient by the bottom."""
        self.build_backward(weights=False, data=True)
        assert self._backward_data is not None
        primitive, bottom_layout, top_layout, weights_layout = self._backward_data
        dy = copies.read(top_diff, top_layout, "diff")
        w = self._arrange_weights(weights, weights_layout)
        primitive.run(dy, w, self._arranger.write(bottom_diff, bottom_layout))

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        built = [*(primitive for primitive, _ in self._forwards.values())]
        built += [found[0] for found in (self._backward_weights, self._backward_data) if found is not None]
        names = [primitive.implementation for primitive in built]
        return names if self._in_float32 is None else names + self._in_float32.implementations

    def _pads_much(self, geometry: ConvolutionGeometry, is_image: bool) -> bool:
        width = self._arranger.engine.library.block_width
        g = geometry
        if g.groups == g.channels == g.output_channels:
            counts = [g.channels]  # depthwise: blocks go over the groups
        else:
            counts = [g.output_channels // g.groups, *([] if is_image else [g.channels // g.groups])]
        return math.prod(-(-count // width) * width / count for count in counts) > _MOST_PADDING

    @property
    def _misleads(self) -> bool:
        """Whether this is a geometry for which oneDNN 3.2 gets the gradients of weights wrong in bfloat16, or crashes: it reads
        past the ends of images smaller than the step from one window to the next, and of some with three axes.
        """
        g = self._geometry
        return len(g.spatial) > 2 or any(size < stride for size, stride in zip(g.spatial, g.stride, strict=True))

    def _arrange_weights(self, weights: Array, layout: Layout) -> Array:
        if layout == self._plain_weights:
            return weights
        arranged = self._arranger.lent(layout.size_bytes)
        self._arranger.reorder(weights, self._plain_weights, arranged, layout)
        return arranged

    def _describe_forward(self, bottom: Layout, relu_slope: float | None = None) -> Descriptor:
        return Descriptor(
            self._arranger.engine, "convolution_forward", PropKind.FORWARD_TRAINING, Algorithm.CONVOLUTION_DIRECT,
            bottom, self._weights, self._bias, self._top, *self._sizes, relu_slope=relu_slope,
        )  # fmt: skip

    def _build_forward(self, relu_slope: float | None) -> tuple[Primitive, Layout]:
        descriptor = (
            self._hint if relu_slope is None else best([self._describe_forward(self.bottom_layout, relu_slope)])
        )
        assert descriptor.layout(Argument.DESTINATION) == self.top_layout
        arguments = [Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION]
        primitive = Primitive(descriptor, *arguments, *([Argument.BIAS] if self._has_bias else []))
        return primitive, descriptor.layout(Argument.WEIGHTS)

    def _build_backward_weights(self) -> tuple[Primitive, Layout, Layout, Layout] | None:
        def describe(bottom: Layout) -> Descriptor:
            return Descriptor(
                self._arranger.engine, "convolution_backward_weights", Algorithm.CONVOLUTION_DIRECT,
                bottom, self._weights_diff, self._bias, self._top, *self._sizes, self._hint,
            )  # fmt: skip

        descriptor = best([describe(bottom) for bottom in (self.bottom_layout, self._bottom)])
        if self._dtype != DataType.F32 and ("gemm" in descriptor.implementation or self._misleads):
            # As for one channel, whose matrix product in bfloat16 takes fifteen times as long as float32's kernel.
            plain = self._arranger.plain(self.bottom_shape)
            self._in_float32 = OneDnnConvolution(self._arranger, self._geometry, self._has_bias, plain)
            self._in_float32.build_backward(weights=True, data=False)
            return None
        arguments = [Argument.SOURCE, Argument.DESTINATION_DIFF, Argument.WEIGHTS_DIFF]
        primitive = Primitive(descriptor, *arguments, *([Argument.BIAS_DIFF] if self._has_bias else []))
        bottom, top, weights = (descriptor.layout(argument) for argument in arguments)
        return primitive, bottom, top, weights

    def _build_backward_data(self) -> tuple[Primitive, Layout, Layout, Layout]:
        def describe(bottom: Layout, top: Layout) -> Descriptor:
            return Descriptor(
                self._arranger.engine, "convolution_backward_data", Algorithm.CONVOLUTION_DIRECT,
                bottom, self._weights, top, *self._sizes, self._hint,
            )  # fmt: skip

        # Forward's own layouts where they will do: what is below goes on in them. Asked for any, oneDNN takes kernels that are
        # no faster in others.
        same = [] if self.bottom_layout.is_in_order else [describe(self.bottom_layout, self.top_layout)]
        descriptor = best([*same, describe(self._bottom, self._top)])
        arguments = [Argument.DESTINATION_DIFF, Argument.WEIGHTS, Argument.SOURCE_DIFF]
        primitive = Primitive(descriptor, *arguments)
        top, weights, bottom = (descriptor.layout(argument) for argument in arguments)
        return primitive, bottom, top, weights
