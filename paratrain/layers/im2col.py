"""Im2col: the windows of a convolution as columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paratrain.backends.base import ConvolutionGeometry, Im2col
from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place
from paratrain.layers.sliding import read_sliding

__all__ = ["Im2colLayer"]


@register_layer("Im2col")
class Im2colLayer(Layer):
    """Every window that a kernel of ``convolution_param`` would see, as one column of values.

    Bottom (batch axes ..., C, *spatial) with the channels at ``axis``; top (batch axes ..., C * kernel values, *output),
    output = (in + 2 pad - (dilation (kernel - 1) + 1)) // stride + 1. Channel (c, *offset) of the top, in row order, is
    the pixel output * stride - pad + offset * dilation of channel c, 0 outside the image. dx = sum of the dy of all the
    places that a pixel was copied to. ``force_nd_im2col`` and ``engine`` change nothing here.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        axis = self.parameter.convolution_param.axis
        self._axis = canonical_axis(self, bottom[0], axis, "convolution_param.axis")
        self._sliding = read_sliding(self, bottom[0].axis_count - self._axis - 1)
        self._geometry: ConvolutionGeometry | None = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape, sliding = bottom[0].shape, self._sliding
        if len(shape) != self._axis + 1 + len(sliding.kernel):
            raise self.error(
                f"{self.bottom_name(0)} has become {shape}; the kernel {sliding.kernel} needs {len(sliding.kernel)} axes "
                f"after axis {self._axis}",
                ShapeMismatchError,
            )
        geometry = ConvolutionGeometry(
            batch=bottom[0].count_between(0, self._axis),
            channels=shape[self._axis],
            spatial=shape[self._axis + 1 :],
            output_channels=1,
            kernel=sliding.kernel,
            stride=sliding.stride,
            pad=sliding.pad,
            dilation=sliding.dilation,
        )
        output = geometry.output_spatial
        if any(size < 1 for size in output):
            raise self.error(
                f"the kernel {sliding.extent} (kernel_size {sliding.kernel}, dilation {sliding.dilation}) is larger than "
                f"{self.bottom_name(0)} {shape}, padded by {sliding.pad}",
                ShapeMismatchError,
            )
        top[0].reshape(*shape[: self._axis], shape[self._axis] * math.prod(sliding.kernel), *output)
        if geometry != self._geometry:
            self._geometry = geometry
            self._im2col: Im2col = self.backend.im2col(geometry, bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._im2col.forward(self._batched(self.read(bottom[0])), self._batched(self.write(top[0])))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            self._im2col.backward(self._batched(self.read_diff(top[0])), self._batched(self.write_diff(bottom[0])))

    def _batched(self, array: Any) -> Any:
        """See all axes before the channels as one."""
        return array if self._axis == 1 else array.reshape(-1, *array.shape[self._axis :])
