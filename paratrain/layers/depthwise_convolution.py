"""DepthwiseConvolution: each channel has kernels of its own."""

from __future__ import annotations

from paratrain.layers.base import register_layer
from paratrain.layers.convolution import ConvolutionLayer

__all__ = ["ConvolutionDepthwiseLayer", "DepthwiseConvolutionLayer"]


@register_layer("DepthwiseConvolution")
class DepthwiseConvolutionLayer(ConvolutionLayer):
    """A Convolution whose ``group`` is the number of the bottom's channels, so no channel sees another one.

    ``num_output`` is a multiple of the channels; weights are (num_output, 1, *kernel). ``group``, where given, must be
    1 or the channels. Source: Howard and others, "MobileNets", 2017, and the layer of that name in the forks that train it.
    """

    def _group_count(self) -> int:
        given = super()._group_count()
        if given not in (1, self._channels):
            raise self.error(
                f"convolution_param.group is {given}, but each of the {self._channels} channels of {self.bottom_name(0)} "
                "is a group here; remove group"
            )
        return self._channels


@register_layer("ConvolutionDepthwise")
class ConvolutionDepthwiseLayer(DepthwiseConvolutionLayer):
    """The name of DepthwiseConvolution in other forks."""
