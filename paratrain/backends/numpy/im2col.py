"""Windows as columns: the layout that convolution multiplies, on its own."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.numpy.convolution import ImagesFirst
from paratrain.backends.numpy.scratch import Scratch

__all__ = ["NumpyIm2col"]

Array = npt.NDArray[Any]


class NumpyIm2col:
    """Copies windows to columns and adds columns back, as :class:`ImagesFirst` does for its products."""

    def __init__(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike, scratch: Scratch) -> None:
        self._windows = ImagesFirst(geometry, dtype, scratch)
        self._shape = (-1, geometry.channels, *geometry.kernel, *geometry.output_spatial)

    def forward(self, bottom: Array, columns: Array) -> None:
        self._windows.unfold(bottom, columns.reshape(self._shape))

    def backward(self, columns_diff: Array, bottom_diff: Array) -> None:
        self._windows.fold(columns_diff.reshape(self._shape), bottom_diff)
