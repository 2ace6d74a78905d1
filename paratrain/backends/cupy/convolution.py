"""Convolution by im2col and cuBLAS: any geometry, any type of values, no cuDNN."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy.bias import Bias
from paratrain.backends.cupy.forms import Form
from paratrain.backends.cupy.im2col import Windows

if TYPE_CHECKING:
    from paratrain.backends.cupy.backend import CupyBackend

__all__ = ["CupyConvolution", "note_absence_of_cudnn"]

logger = logging.getLogger(__name__)

_WORKSPACE_BYTES = 256 << 20  # for the columns of several images at once; one image may need more

_ALIGNMENT = 128  # values


@functools.cache
def note_absence_of_cudnn(reason: str) -> None:
    """Write to the log, once, that convolutions do without cuDNN, and why."""
    logger.info("Convolutions are computed by im2col and cuBLAS, more slowly and with more memory: %s", reason)


class CupyConvolution:
    """Columns of many images side by side, (channels / groups * kernel values, images * output pixels), so that one product for
    each group makes all of their outputs; see :class:`paratrain.backends.base.Convolution`.

    Arrays are flat, or of their full shape, in plain order and of ``dtype``: float32, float64, float16 or bfloat16. The bias
    and the gradients of parameters are float32, or float64 beside that. Columns and products lie in the backend's workspace.
    """

    def __init__(self, backend: CupyBackend, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> None:
        self._geometry = g = geometry
        self._dtype = np.dtype(dtype)
        self._blas, self._workspace = backend.blas, backend.workspace
        self._windows = windows = Windows(backend.forms, geometry, dtype)
        self._kernels = backend.forms.kernels("im2col", dtype)
        self._bias = Bias(backend.forms)
        self._column_count = windows.depth * windows.output_count
        self._top_count = g.output_channels * windows.output_count
        image_bytes = (self._column_count + self._top_count) * self._dtype.itemsize
        rounds = -(-g.batch // max(_WORKSPACE_BYTES // max(image_bytes, 1), 1))
        self._images = -(-g.batch // max(rounds, 1))
        self._workspace.reserve(self._images * image_bytes + _ALIGNMENT * self._dtype.itemsize)

    def forward(self, bottom: Any, weights: Any, bias: Any | None, top: Any, relu_slope: float | None = None) -> None:
        """top = weights * bottom + bias, with ``relu_slope`` followed by a ReLU of this negative slope."""
        weights = self._by_groups(weights)
        for images, (below, above) in self._rounds(bottom, top):
            columns, products = self._take(images)
            self._windows.unfold(images, below, columns, images_first=False)
            out = above if images == 1 else products
            self._blas.batched_product(weights, self._columns(columns), self._products(out))
            if images == 1:
                self._bias.add(above, self._top_form(1), bias, relu_slope)
            else:
                self._turn(products, above, self._geometry.output_channels, images, bias, relu_slope)

    def backward_data(self, top_diff: Any, weights: Any, bottom_diff: Any) -> None:
        """bottom_diff = the gradient by the bottom."""
        transposed = self._by_groups(weights).transpose(0, 2, 1)
        for images, (above, below) in self._rounds(top_diff, bottom_diff):
            columns, products = self._take(images)
            turned = self._turned(above, products, images)
            self._blas.batched_product(transposed, self._products(turned), self._columns(columns))
            self._windows.fold(images, columns, below, images_first=False)

    def backward_weights(self, bottom: Any, top_diff: Any, weights_diff: Any, accumulate: bool = True) -> None:
        """weights_diff = (or += to ``accumulate``) the gradient by the weights."""
        weights_diff = self._by_groups(weights_diff)
        if not accumulate and not bottom.size:
            weights_diff.fill(0)
        for images, (below, above) in self._rounds(bottom, top_diff):
            columns, products = self._take(images)
            self._windows.unfold(images, below, columns, images_first=False)
            turned = self._products(self._turned(above, products, images))
            factor = self._columns(columns).transpose(0, 2, 1)
            self._blas.batched_product(turned, factor, weights_diff, beta=1.0 if accumulate else 0.0)
            accumulate = True

    def backward_bias(self, top_diff: Any, bias_diff: Any, accumulate: bool = True) -> None:
        """bias_diff = (or += to ``accumulate``) the sum of top_diff over images and pixels."""
        self._bias.backward(top_diff, self._top_form(self._geometry.batch), bias_diff, accumulate=accumulate)

    def _rounds(self, *arrays: Any) -> Iterator[tuple[int, list[Any]]]:
        """Cut arrays that hold the whole batch into those of as many images as are computed at once."""
        batch = self._geometry.batch
        if all(array.size for array in arrays):
            rows = [array.reshape(batch, -1) for array in arrays]
            for first in range(0, batch, self._images):
                parts = [array[first : first + self._images] for array in rows]
                yield parts[0].shape[0], parts

    def _take(self, images: int) -> tuple[Any, Any]:
        """Memory for the columns and the products of so many images."""
        columns, products = images * self._column_count, images * self._top_count
        start = -(-columns // _ALIGNMENT) * _ALIGNMENT
        taken = self._workspace.take(start + products, self._dtype)
        return taken[:columns], taken[start:]

    def _by_groups(self, weights: Any) -> Any:
        g = self._geometry
        return weights.reshape(g.groups, g.output_channels // g.groups, self._windows.depth // g.groups)

    def _columns(self, columns: Any) -> Any:
        groups = self._geometry.groups
        return columns.reshape(groups, self._windows.depth // groups, -1)

    def _products(self, products: Any) -> Any:
        g = self._geometry
        return products.reshape(g.groups, g.output_channels // g.groups, -1)

    def _turned(self, above: Any, products: Any, images: int) -> Any:
        """Values of the top with the channels outermost."""
        if images == 1:
            return above
        self._turn(above, products, images, self._geometry.output_channels, None, None)
        return products

    def _turn(
        self, source: Any, target: Any, rows: int, columns: int, bias: Any | None, relu_slope: float | None
    ) -> None:
        pixels = self._windows.output_count
        arguments = (source, target, rows, columns, pixels, bias, relu_slope is not None, relu_slope or 0.0)
        self._kernels.launch("turn", rows * columns * pixels, *arguments)

    def _top_form(self, images: int) -> Form:
        return Form.of((images, self._geometry.output_channels, self._windows.output_count), self._dtype)
