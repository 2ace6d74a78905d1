"""What Convolution and Deconvolution share: fields, blobs, and one shape for all bottoms."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

from paratrain.backends.base import Convolution, ConvolutionGeometry
from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer
from paratrain.layers.checks import canonical_axis, refuse_in_place
from paratrain.layers.learnable import add_learnable_blob
from paratrain.layers.sliding import read_sliding

__all__ = ["ConvolutionBase"]


class ConvolutionBase(Layer):
    """Bottoms (batch axes ..., C, *spatial) with the channels at ``axis``, all of one shape, that share the weights."""

    bottom_range = (1, None)
    top_range = (1, None)
    equal_bottom_top_count = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.convolution_param
        self._axis = canonical_axis(self, bottom[0], parameter.axis, "convolution_param.axis")
        if parameter.num_output < 1:
            raise self.error("convolution_param.num_output must be given and be at least 1")
        if parameter.relu:
            raise self.error(
                "convolution_param.relu is Intel Caffe's and does nothing here; add a ReLU layer after this one"
            )
        self._sliding = read_sliding(self, bottom[0].axis_count - self._axis - 1)
        self._channels = bottom[0].shape[self._axis]
        self._output_channels = parameter.num_output
        self._groups = self._group_count()
        for what, value in (
            (f"the {self._channels} channels of {self.bottom_name(0)} {bottom[0].shape}", self._channels),
            (f"num_output {self._output_channels}", self._output_channels),
        ):
            if self._groups < 1 or value % self._groups:
                raise self.error(f"{what} cannot be cut into group: {self._groups} equal parts", ShapeMismatchError)
        add_learnable_blob(self, self._weights_shape(), bottom[0].dtype, parameter.weight_filler)
        if parameter.bias_term:
            add_learnable_blob(self, (self._output_channels,), bottom[0].dtype, parameter.bias_filler)
        self._geometry: ConvolutionGeometry | None = None
        self._made_convolution: Convolution | None = None

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
        spatial_count = len(self._sliding.kernel)
        if len(shape) != self._axis + 1 + spatial_count or shape[self._axis] != self._channels:
            raise self.error(
                f"{self.bottom_name(0)} has become {shape}; the weights {self.blobs[0].shape} with group {self._groups} "
                f"need {self._channels} channels at axis {self._axis} and {spatial_count} axes after it",
                ShapeMismatchError,
            )
        geometry, output = self._make_geometry(bottom[0])
        for blob in top:
            blob.reshape(*shape[: self._axis], self._output_channels, *output)
        if geometry != self._geometry:
            self._geometry, self._dtype = geometry, bottom[0].dtype
            self._made_convolution = None

    @property
    def _convolution(self) -> Convolution:
        """What computes on plain arrays; made when first asked for, since layers of backends may never do so."""
        assert self._geometry is not None
        if self._made_convolution is None:
            self._made_convolution = self.backend.convolution(self._geometry, self._dtype)
        return self._made_convolution

    def _group_count(self) -> int:
        """Return into how many groups the channels are cut; ``self._channels`` is known."""
        return self.parameter.convolution_param.group

    @abc.abstractmethod
    def _weights_shape(self) -> tuple[int, ...]:
        """Return the shape of blob 0."""

    @abc.abstractmethod
    def _make_geometry(self, bottom: Blob) -> tuple[ConvolutionGeometry, tuple[int, ...]]:
        """Return the geometry for bottoms of this shape, and the spatial axes of the tops."""

    def _batched(self, array: Any) -> Any:
        """See all axes before the channels as one."""
        return (
            array
            if self._axis == 1
            else array.reshape(math.prod(array.shape[: self._axis]), *array.shape[self._axis :])
        )
