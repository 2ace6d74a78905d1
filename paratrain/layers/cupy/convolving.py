"""What layers over a convolution share on the GPU: cuDNN's kernels for it, or where these are missing matrix products."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.convolution import CupyConvolution
from paratrain.backends.cupy.cudnn.convolution import CudnnConvolution
from paratrain.backends.cupy.cudnn.library import UnsupportedError
from paratrain.backends.cupy.forms import Form
from paratrain.backends.cupy.weights import PreparedWeights
from paratrain.blob import Blob, Memory, MemorySlice
from paratrain.layers.convolution_base import ConvolutionBase
from paratrain.layers.cupy.fusion import EndsInReLU

__all__ = ["ConvolvingLayer", "Kernel"]

logger = logging.getLogger(__name__)


class Kernel(Protocol):
    """What computes a convolution: see :class:`CudnnConvolution`."""

    bottom_form: Form
    top_form: Form

    def prepare_backward(self, *, weights: bool, data: bool) -> None: ...
    def forward(
        self, x: Any, weights: Memory, bias: Memory | None, y: Any, relu_slope: float | None = None
    ) -> None: ...
    def backward_data(self, dy: Any, weights: Memory, bias: Memory | None, dx: Any) -> None: ...
    def backward_weights(self, x: Any, dy: Any, weights_diff: Any, *, accumulate: bool = True) -> None: ...


class ByProducts:
    """The same by im2col and matrix products, in the type of the backend's precision, channels second."""

    def __init__(self, backend: CupyBackend, geometry: ConvolutionGeometry) -> None:
        dtype = backend.precision.storage
        self.bottom_form = Form.of((geometry.batch, geometry.channels, *geometry.spatial), dtype)
        self.top_form = Form.of((geometry.batch, geometry.output_channels, *geometry.output_spatial), dtype)
        channels = geometry.channels // geometry.groups
        weights_form = Form.of((geometry.output_channels, channels, *geometry.kernel), dtype)
        self._weights = PreparedWeights(backend.forms, weights_form)
        self._convolution = CupyConvolution(backend, geometry, dtype)
        self._device = backend.device

    def prepare_backward(self, *, weights: bool, data: bool) -> None:
        """Nothing is missing."""

    def forward(self, x: Any, weights: Memory, bias: Memory | None, y: Any, relu_slope: float | None = None) -> None:
        bias_array = None if bias is None else bias.device(self._device)
        self._convolution.forward(x, self._weights.read(weights)[0], bias_array, y, relu_slope)

    def backward_data(self, dy: Any, weights: Memory, bias: Memory | None, dx: Any) -> None:
        self._convolution.backward_data(dy, self._weights.read(weights)[0], dx)

    def backward_weights(self, x: Any, dy: Any, weights_diff: Any, *, accumulate: bool = True) -> None:
        self._convolution.backward_weights(x, dy, weights_diff, accumulate=accumulate)


class ConvolvingLayer(EndsInReLU, ConvolutionBase):
    """A layer whose arithmetic is a convolution of ``self._geometry``, run one way or the other. Mixed in before the plain layer,
    whose methods run where blobs have to stay plain.
    """

    convolution_has_bias = False
    """Whether the bias is added to the convolution's top, so that its kernels may do so."""

    _kernel: Kernel | None = None
    """What computes shapes like the current ones."""
    _refused: ConvolutionGeometry | None = None
    """What cuDNN has no kernels for."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        before = self._geometry
        super().reshape(bottom, top)
        if self._geometry != before:
            self._kernel = None
            self.copies.clear()

    def can_arrange(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
        """Whether there are values, which may be left in any form, and begin where memory that is allocated begins."""
        written = [*(blob.data_memory for blob in top), *(blob.diff_memory for blob in (*bottom, *top))]
        is_whole = not any(isinstance(blob.data_memory, MemorySlice) for blob in bottom)
        return bool(bottom[0].count and top[0].count) and is_whole and self.may_arrange(*written)

    def choose_kernel(self) -> Kernel:
        """Return what computes the forward pass."""
        geometry, cudnn = self._geometry, self.gpu.cudnn
        assert geometry is not None
        if self._kernel is None and cudnn is not None and geometry != self._refused:
            try:
                has_bias = self.convolution_has_bias and len(self.blobs) > 1
                relu_follows = self.convolution_has_bias and self.relu is not None
                self._kernel = CudnnConvolution(
                    cudnn, self.forms, geometry, has_bias=has_bias, relu_follows=relu_follows
                )
            except UnsupportedError as error:
                self._refuse(error)
        if self._kernel is None:
            self._kernel = ByProducts(self.gpu, geometry)
        return self._kernel

    def kernel_with(self, *, weights: bool, data: bool) -> Kernel:
        """The same, or another from now on where that one has no kernels for these gradients of the convolution."""
        kernel = self.choose_kernel()
        try:
            kernel.prepare_backward(weights=weights, data=data)
        except UnsupportedError as error:
            self._refuse(error)
            kernel = self.choose_kernel()
        return kernel

    def _refuse(self, error: UnsupportedError) -> None:
        self._kernel, self._refused = None, self._geometry
        self.copies.clear()
        logger.info("Layer %s is computed by im2col and matrix products: %s", self.name, error)
