"""The Convolution layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends.base import Convolution, ConvolutionGeometry
from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place
from paratrain.layers.learnable import add_learnable_blob

__all__ = ["ConvolutionLayer"]


@register_layer("Convolution")
class ConvolutionLayer(Layer):
    """Cross-correlates every bottom with the same learnable kernels and adds a bias for each output.

    Bottoms (batch axes ..., C, *spatial) with the channels at ``axis``, all of one shape; tops
    (batch axes ..., num_output, *output), output = (in + 2 pad - (dilation (kernel - 1) + 1)) // stride + 1.
    Blobs: weights (num_output, C / group, *kernel) and, unless ``bias_term`` is false, bias (num_output,).
    With ``group`` g, output channels are cut into g parts that each see one part of the input channels.
    ``force_nd_im2col`` and ``engine`` choose between ways to compute in Caffe and change nothing here.
    """

    bottom_range = (1, None)
    top_range = (1, None)
    equal_bottom_top_count = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.convolution_param
        self._axis = canonical_axis(self, bottom[0], parameter.axis, "convolution_param.axis")
        axis_count = bottom[0].axis_count - self._axis - 1
        if parameter.num_output < 1:
            raise self.error("convolution_param.num_output must be given and be at least 1")
        if parameter.relu:
            raise self.error(
                "convolution_param.relu is Intel Caffe's and does nothing here; add a ReLU layer after this one"
            )
        self._kernel = self._per_axis("kernel_size", ("kernel_h", "kernel_w"), axis_count, None)
        self._stride = self._per_axis("stride", ("stride_h", "stride_w"), axis_count, 1)
        self._pad = self._per_axis("pad", ("pad_h", "pad_w"), axis_count, 0)
        self._dilation = self._per_axis("dilation", ("dilation_h", "dilation_w"), axis_count, 1)
        for name, values in (("kernel_size", self._kernel), ("stride", self._stride), ("dilation", self._dilation)):
            if any(value < 1 for value in values):
                raise self.error(f"{name} is {values}; it must be at least 1 along every axis")
        self._channels = bottom[0].shape[self._axis]
        self._output_channels = parameter.num_output
        self._groups = parameter.group
        for what, value in (
            (f"the {self._channels} channels of {self.bottom_name(0)} {bottom[0].shape}", self._channels),
            (f"num_output {self._output_channels}", self._output_channels),
        ):
            if self._groups < 1 or value % self._groups:
                raise self.error(f"{what} cannot be cut into group: {self._groups} equal parts", ShapeMismatchError)
        shapes = [(self._output_channels, self._channels // self._groups, *self._kernel)]
        fillers = [parameter.weight_filler]
        if parameter.bias_term:
            shapes.append((self._output_channels,))
            fillers.append(parameter.bias_filler)
        for shape, filler in zip(shapes, fillers, strict=True):
            add_learnable_blob(self, shape, bottom[0].dtype, filler)
        self._geometry: ConvolutionGeometry | None = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        for index, blob in enumerate(bottom):
            if blob.shape != shape:
                raise self.error(
                    f"{self.bottom_name(index)} is {blob.shape} and {self.bottom_name(0)} is {shape}; "
                    "all bottoms must have the same shape, they share the weights",
                    ShapeMismatchError,
                )
        if len(shape) != self._axis + 1 + len(self._kernel) or shape[self._axis] != self._channels:
            raise self.error(
                f"{self.bottom_name(0)} has become {shape}; the weights {self.blobs[0].shape} with group {self._groups} "
                f"need {self._channels} channels at axis {self._axis} and {len(self._kernel)} axes after it",
                ShapeMismatchError,
            )
        geometry = ConvolutionGeometry(
            batch=bottom[0].count_between(0, self._axis),
            channels=self._channels,
            spatial=shape[self._axis + 1 :],
            output_channels=self._output_channels,
            kernel=self._kernel,
            stride=self._stride,
            pad=self._pad,
            dilation=self._dilation,
            groups=self._groups,
        )
        output = geometry.output_spatial
        if any(size < 1 for size in output):
            padded = tuple(n + 2 * pad for n, pad in zip(geometry.spatial, self._pad, strict=True))
            extent = tuple(d * (k - 1) + 1 for k, d in zip(self._kernel, self._dilation, strict=True))
            raise self.error(
                f"the kernel {extent} (kernel_size {self._kernel}, dilation {self._dilation}) is larger than "
                f"{self.bottom_name(0)} {shape}, padded to {padded}",
                ShapeMismatchError,
            )
        for blob in top:
            blob.reshape(*shape[: self._axis], self._output_channels, *output)
        if geometry != self._geometry:
            self._geometry = geometry
            self._convolution: Convolution = self.backend.convolution(geometry, bottom[0].dtype)

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

    def _batched(self, array: Any) -> Any:
        """See all axes before the channels as one."""
        return array if self._axis == 1 else array.reshape(-1, *array.shape[self._axis :])

    def _per_axis(self, name: str, by_axis: tuple[str, str], axis_count: int, default: int | None) -> tuple[int, ...]:
        """Read a field that gives one value for all spatial axes, one for each, or height and width by name."""
        parameter = self.parameter.convolution_param
        values = tuple(getattr(parameter, name))
        named = [field for field in by_axis if parameter.HasField(field)]
        if named:
            if values:
                raise self.error(f"give {name} or {' and '.join(by_axis)}, not both")
            if axis_count != 2:
                raise self.error(f"{named[0]} needs two spatial axes; the bottom has {axis_count}: use {name}")
            if len(named) == 1 and default is None:
                raise self.error(f"{named[0]} is given without its partner: give both {' and '.join(by_axis)}")
            return tuple(getattr(parameter, field) if field in named else default or 0 for field in by_axis)
        if not values:
            if default is None and axis_count:
                raise self.error(f"give {name}, or {' and '.join(by_axis)}")
            return (default or 0,) * axis_count
        if len(values) not in (1, axis_count):
            raise self.error(
                f"{name} is given {len(values)} times; give it once, or once for each of {axis_count} axes"
            )
        return values if len(values) == axis_count else values * axis_count
