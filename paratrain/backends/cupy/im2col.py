"""The windows of a convolution as columns, on the GPU."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy.forms import Forms
from paratrain.errors import BackendError

__all__ = ["CupyIm2col", "Windows"]

_MOST_AXES = 3


class Windows:
    """Launches the kernels of im2col.cu for one geometry: for any number of its images, and columns in either order."""

    def __init__(self, forms: Forms, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> None:
        axes = len(geometry.spatial)
        if axes > _MOST_AXES:
            raise BackendError(
                f"the GPU takes windows over up to {_MOST_AXES} spatial axes; found {axes}, {geometry.spatial}: "
                "compute this net on the CPU (without -gpu)"
            )
        self._kernels = forms.kernels("im2col", dtype)
        self._channels = geometry.channels
        self.pixel_count = math.prod(geometry.spatial)
        self.output_count = math.prod(geometry.output_spatial)
        self.depth = geometry.channels * math.prod(geometry.kernel)
        """How many values of each image lie in the window of an output pixel."""
        missing = _MOST_AXES - axes
        ones, zeros = (1,) * missing, (0,) * missing
        self._axes = (
            *(*ones, *geometry.spatial),
            *(*ones, *geometry.kernel),
            *(*ones, *geometry.stride),
            *(*zeros, *geometry.pad),
            *(*ones, *geometry.dilation),
            *(*ones, *geometry.output_spatial),
        )

    def unfold(self, images: int, bottom: Any, columns: Any, *, images_first: bool) -> None:
        """Write the columns of ``images`` images, (images, depth, output pixels) or else (depth, images, output pixels)."""
        count = images * self._channels * self.output_count
        self._kernels.launch("im2col", count, bottom, columns, *self._sizes(images, images_first))

    def fold(self, images: int, columns: Any, bottom: Any, *, images_first: bool) -> None:
        """Write to the images the sums of the columns' values that lie over each pixel."""
        count = images * self._channels * self.pixel_count
        self._kernels.launch("col2im", count, columns, bottom, *self._sizes(images, images_first))

    def _sizes(self, images: int, images_first: bool) -> tuple[int, ...]:
        pixels = self.output_count
        depth_step, image_step = (pixels, self.depth * pixels) if images_first else (images * pixels, pixels)
        return (images, self._channels, depth_step, image_step, *self._axes)


class CupyIm2col:
    """Columns (N, C * kernel values, *output) of images (N, C, *spatial), and their sums back."""

    def __init__(self, forms: Forms, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> None:
        self._windows = Windows(forms, geometry, dtype)
        self._images = geometry.batch

    def forward(self, bottom: Any, columns: Any) -> None:
        self._windows.unfold(self._images, bottom, columns, images_first=True)

    def backward(self, columns_diff: Any, bottom_diff: Any) -> None:
        self._windows.fold(self._images, columns_diff, bottom_diff, images_first=True)
