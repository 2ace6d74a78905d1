"""Pooling, with Caffe's sizes and divisors.

Caffe rounds sizes up and lets windows reach over the padded edge; ONNX's ``ceil_mode`` does so too, but differs in which last
window is dropped and in what it divides by. So ``ceil_mode`` is never used: the image is padded at its end just so far that
rounding down gives Caffe's size. Means divide by the pixels that are there, and are multiplied by a constant for each pixel
of the result where Caffe divides by more. What counts the padding too (``count_include_pad``) is used only where the padding
is the same on all four sides, since onnxruntime 1.23 is wrong where it is not, from opset 19 on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paratrain.proto import LayerParameter
from paratrain.proto.caffe_pb2 import PoolingParameter, SPPParameter
from paratrain.tools.onnx.graph import Size
from paratrain.tools.onnx.view import LayerView, UnsayableError, translates

__all__ = ["Windows", "average"]


@dataclass(frozen=True)
class Windows:
    """Windows over an image; all are (height, width)."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    output: tuple[int, int]

    @property
    def end_pad(self) -> tuple[int, int]:
        """How far the last window reaches over the image's own end."""
        down, right = (
            max((self.output[axis] - 1) * self.stride[axis] + self.kernel[axis] - self.image[axis] - self.pad[axis], 0)
            for axis in range(2)
        )
        return down, right

    def attributes(self) -> dict[str, list[int]]:
        """What ONNX's pooling operators read."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "pads": [*self.pad, *self.end_pad],
        }

    @property
    def fit_evenly(self) -> bool:
        """Whether no window reaches over the padding at the end: rounding up or down is the same."""
        sizes = zip(self.image, self.kernel, self.stride, self.pad, self.output, strict=True)
        return all((size + 2 * pad - kernel) // stride + 1 == output for size, kernel, stride, pad, output in sizes)

    def pixel_counts(self, *, in_padding: bool) -> npt.NDArray[np.float64]:
        """The pixels of each window that lie within the image, or ``in_padding`` within it and the padding on either side.

        Caffe divides the sum by the latter.
        """
        lengths = []
        for axis in range(2):
            pad = self.pad[axis] if in_padding else 0
            starts = np.arange(self.output[axis]) * self.stride[axis] - self.pad[axis]
            stops = np.minimum(starts + self.kernel[axis], self.image[axis] + pad)
            lengths.append((stops - np.maximum(starts, -pad)).astype(np.float64))
        return np.outer(lengths[0], lengths[1])


def average(view: LayerView, x: str, windows: Windows) -> str:
    """The means of the windows, divided as Caffe does."""
    attributes = windows.attributes()
    if windows.pad[0] == windows.pad[1] > 0 and windows.fit_evenly:
        return view.add("AveragePool", x, **{**attributes, "pads": [*windows.pad] * 2}, count_include_pad=1)
    y = view.add("AveragePool", x, **attributes, count_include_pad=0)
    factors = windows.pixel_counts(in_padding=False) / windows.pixel_counts(in_padding=True)
    return y if (factors == 1).all() else view.add("Mul", y, view.floats("window_factors", factors))


@translates("Pooling")
def _pooling(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.pooling_param
    if parameter.global_pooling and len(view.tops) == 1 and parameter.pool != PoolingParameter.STOCHASTIC:
        return [
            view.add("GlobalMaxPool" if parameter.pool == PoolingParameter.MAX else "GlobalAveragePool", view.inputs[0])
        ]
    windows = _read_windows(view.layer.parameter, view, view.bottoms[0], view.tops[0])
    return _pool(view, PoolingParameter.PoolMethod.Name(parameter.pool), windows, len(view.tops))


def _pool(view: LayerView, method: str, windows: Windows, top_count: int = 1) -> list[str]:
    x = view.inputs[0]
    if method == "AVE":
        return [average(view, x, windows)]
    if method == "STOCHASTIC":
        return [_weighted_mean(view, x, windows)]
    if top_count == 1:
        return [view.add("MaxPool", x, **windows.attributes())]
    y, places = view.add_many("MaxPool", [x], 2, **windows.attributes())
    # Counted through the whole tensor; Caffe counts within each image of a channel.
    pixels = view.integers("pixels", windows.image[0] * windows.image[1])
    return [y, view.add("Cast", view.add("Mod", places, pixels), to="FLOAT")]


def _weighted_mean(view: LayerView, x: str, windows: Windows) -> str:
    """(sum of x^2) / (sum of x), 0 where the sum is not positive: what STOCHASTIC is in TEST."""
    squares, sums = average(view, view.add("Mul", x, x), windows), average(view, x, windows)
    zero = view.floats("zero", 0)
    return view.add("Where", view.add("Greater", sums, zero), view.add("Div", squares, sums), zero)


def _read_windows(parameter: LayerParameter, view: LayerView, size: Size, top: Size) -> Windows:
    pooling = parameter.pooling_param
    image = (view.fixed(size, 2, "the image's height"), view.fixed(size, 3, "the image's width"))
    if pooling.global_pooling:
        return Windows(image, image, (1, 1), (0, 0), (1, 1))

    def pair(name: str, prefix: str) -> tuple[int, int]:
        if pooling.HasField(f"{prefix}_h"):
            return getattr(pooling, f"{prefix}_h"), getattr(pooling, f"{prefix}_w")
        value = getattr(pooling, name)
        return value, value

    output = (top.shape[2], top.shape[3])
    return Windows(image, pair("kernel_size", "kernel"), pair("stride", "stride"), pair("pad", "pad"), output)


@translates("SPP")
def _spp(view: LayerView) -> list[str]:
    parameter, size, top = view.layer.parameter.spp_param, view.bottoms[0], view.tops[0]
    height, width = (view.fixed(size, axis, "the image's size") for axis in (2, 3))
    parts = []
    for level in range(parameter.pyramid_height):
        bins = 2**level
        kernel = (-(-height // bins), -(-width // bins))
        pad = ((kernel[0] * bins - height + 1) // 2, (kernel[1] * bins - width + 1) // 2)
        output = (_rounded_up(height, kernel[0], pad[0]), _rounded_up(width, kernel[1], pad[1]))
        windows = Windows((height, width), kernel, kernel, pad, output)
        parts += _pool(view, SPPParameter.PoolMethod.Name(parameter.pool), windows)
    if len(parts) == 1:
        return parts
    flat = [view.add("Flatten", part, axis=1) for part in parts]
    if top.rank != 2:
        raise UnsayableError(f"its result has the shape {top.shape}")
    return [view.add("Concat", *flat, axis=1)]


def _rounded_up(size: int, kernel: int, pad: int) -> int:
    """The number of windows side by side, with a stride of the kernel's size."""
    count = -(-(size + 2 * pad - kernel) // kernel) + 1
    return count - 1 if pad and (count - 1) * kernel >= size + pad else count


@translates("ROIPooling")
def _roi_pooling(view: LayerView) -> list[str]:
    parameter, size = view.layer.parameter.roi_pooling_param, view.bottoms[1]
    regions = view.reshape(view.inputs[1], size, size.joined([0], list(range(1, size.rank))))
    cells = [parameter.pooled_h, parameter.pooled_w]
    return [view.add("MaxRoiPool", view.inputs[0], regions, pooled_shape=cells, spatial_scale=parameter.spatial_scale)]
