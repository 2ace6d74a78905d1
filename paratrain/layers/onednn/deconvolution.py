"""Deconvolution on oneDNN: its convolution, run backwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.channel_bias import OneDnnChannelBias
from paratrain.backends.onednn.convolution import OneDnnConvolution
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import DataType, NormalizationFlags
from paratrain.backends.onednn.normalization import OneDnnNormalization
from paratrain.backends.onednn.primitive import Array
from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.deconvolution import DeconvolutionLayer
from paratrain.layers.onednn.arrays import owns_memory
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.layers.onednn.channel_by_channel import float_array

__all__ = ["OneDnnDeconvolutionLayer"]

_SHIFT = NormalizationFlags.USE_GIVEN_STATISTICS | NormalizationFlags.USE_SHIFT


class _Shift:
    """The bias as a normalization that only shifts; its interface is that of :class:`OneDnnChannelBias`."""

    def __init__(self, arranger: Arranger, layout: Layout) -> None:
        self._normalization = OneDnnNormalization(arranger, layout, _SHIFT, 0.0)
        self.layout = self._normalization.layout
        self._zeros, self._ones = (float_array(layout.shape[1]) for _ in range(2))
        self._ones[:] = 1

    def forward(self, x: Array, y: Array, bias: Array) -> None:
        self._normalization.forward(x, y, self._zeros, self._ones, bias)

    def backward(self, dy: Array, bias_diff: Array) -> None:
        self._normalization.backward(dy, dy, None, self._zeros, self._ones, shift_diff=bias_diff)

    @property
    def implementations(self) -> list[str]:
        return self._normalization.implementations


def _build_bias(arranger: Arranger, layout: Layout) -> _Shift | OneDnnChannelBias:
    try:
        return _Shift(arranger, layout)
    except UnsupportedError:
        return OneDnnChannelBias(arranger, layout)


class _Kernel:
    """The convolution from the tops to the bottoms, and what adds the bias."""

    def __init__(self, layer: OneDnnDeconvolutionLayer, dtype: DataType) -> None:
        geometry = layer.geometry
        self.top_shape = (geometry.batch, geometry.channels, *geometry.spatial)
        arranger = layer.arranger
        self.convolution = OneDnnConvolution(arranger, geometry, False, arranger.plain(self.top_shape), dtype)
        self.convolution.build_backward(weights=layer.param_propagate_down[0], data=True)
        has_bias = len(layer.blobs) > 1
        layout = self.convolution.bottom_layout
        self.bias = _build_bias(arranger, layout) if has_bias else None
        self.bias_diff = float_array(geometry.channels)

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        return self.convolution.implementations + ([] if self.bias is None else self.bias.implementations)


@register_layer("Deconvolution", backend="onednn")
class OneDnnDeconvolutionLayer(OneDnnLayer[_Kernel], DeconvolutionLayer):
    """Deconvolution over one to three spatial axes by oneDNN, in the layouts that it prefers."""

    @property
    def geometry(self) -> ConvolutionGeometry:
        """That of the convolution from the tops to the bottoms."""
        assert self._geometry is not None
        return self._geometry

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self._choose_kernel(bottom, top)
        if kernel is None:
            super().forward(bottom, top)
            return
        weights = self.blobs[0].data_memory.host()
        for below, above in zip(bottom, top, strict=True):
            kernel.convolution.backward_data(self.copies, below.data_memory, weights, above.data_memory)
            if kernel.bias is not None:
                y = self.copies.read(above.data_memory, kernel.bias.layout)
                bias = self.blobs[1].data_memory.host()
                kernel.bias.forward(y, self.arranger.write(above.data_memory, kernel.bias.layout), bias)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest_kernel
        if kernel is None:
            super().backward(top, propagate_down, bottom)
            return
        for above, below, down in zip(top, bottom, propagate_down, strict=True):
            if self.param_propagate_down[0]:
                accumulate = self.accumulates(0)
                weights_diff = self.blobs[0].diff_memory.mutable_host()
                kernel.convolution.backward_weights(
                    self.copies, above.diff_memory, below.data_memory, weights_diff, None, accumulate=accumulate
                )
            if kernel.bias is not None and self.param_propagate_down[1]:
                dy = self.copies.read(above.diff_memory, kernel.bias.layout)
                kernel.bias.backward(dy, kernel.bias_diff)
                bias_diff = self.blobs[1].diff_memory.mutable_host()[: kernel.bias_diff.size]
                np.add(bias_diff, kernel.bias_diff, out=bias_diff)
            if down:
                weights = self.blobs[0].data_memory.host()
                kernel.convolution.forward(self.copies, above.diff_memory, weights, None, below.diff_memory)

    def _choose_kernel(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> _Kernel | None:
        memories = [memory for blob in (*bottom, *top) for memory in (blob.data_memory, blob.diff_memory)]
        if not 1 <= len(self.geometry.spatial) <= 3 or not owns_memory(*memories) or not top[0].count:
            return self.no_kernel()
        return self.kernel(self.geometry, lambda: self.in_own_dtype(lambda dtype: _Kernel(self, dtype)))
