"""The sizes that primitives are built for."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["ConvolutionGeometry", "LocalResponseGeometry", "PoolMethod", "PoolingGeometry"]


@dataclass(frozen=True)
class ConvolutionGeometry:
    """Sizes of a convolution over any number of spatial axes.

    Bottom (batch, channels, *spatial), weights (output_channels, channels / groups, *kernel),
    top (batch, output_channels, *output_spatial); output axis = (in + 2 pad - (dilation (kernel - 1) + 1)) // stride + 1.
    """

    batch: int
    channels: int
    spatial: tuple[int, ...]
    output_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def output_spatial(self) -> tuple[int, ...]:
        sizes = zip(self.spatial, self.kernel, self.stride, self.pad, self.dilation, strict=True)
        return tuple((n + 2 * pad - (dilation * (k - 1) + 1)) // stride + 1 for n, k, stride, pad, dilation in sizes)


class PoolMethod(enum.Enum):
    """What a pooling does with a window: its maximum, its average, or one of its pixels drawn by their values."""

    MAX = "MAX"
    AVE = "AVE"
    STOCHASTIC = "STOCHASTIC"


@dataclass(frozen=True)
class PoolingGeometry:
    """Sizes of a pooling over (N, C, H, W); ``output`` is (height, width) of the top, rounded as Caffe does.

    Windows may reach over the padded bottom and right edge. MAX takes what lies inside the image, the first of equals in
    row order; AVE divides the sum by the part of the window that lies inside the padded image. STOCHASTIC has no padding
    and takes the first pixel, in row order, at which the running sum reaches (1 - u) times the sum of the window, u being
    a number that is given for each window; the first pixel where none does.
    """

    method: PoolMethod
    batch: int
    channels: int
    spatial: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    output: tuple[int, int]


@dataclass(frozen=True)
class LocalResponseGeometry:
    """Local response normalization over (N, C, *spatial): ``y = x (k + alpha / size * sum of x^2 over size channels)^-beta``."""

    shape: tuple[int, ...]
    size: int
    alpha: float
    beta: float
    k: float
