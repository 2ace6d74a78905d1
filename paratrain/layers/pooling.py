"""The Pooling layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from paratrain.backends.base import Pooling, PoolingGeometry, PoolMethod
from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.stochastic_pooling import DrawnPooling, WeightedMeanPooling
from paratrain.proto import TRAIN
from paratrain.proto.caffe_pb2 import PoolingParameter

__all__ = ["PoolingLayer"]


@register_layer("Pooling")
class PoolingLayer(Layer):
    """The maximum (MAX), the mean (AVE) or a pixel drawn at random (STOCHASTIC) of every window of an image.

    Bottom (N, C, H, W), top (N, C, out_h, out_w), out = ceil((in + 2 pad - kernel) / stride) + 1, floor with
    ``round_mode: FLOOR``; with padding, a last window that would start behind the image is dropped. A second top of MAX
    gets the index y * W + x of each maximum, as floats. ``global_pooling`` makes the kernel the whole image.

    Gradients: dy goes to the first of the maxima in row order; to all pixels, divided as the mean is; to the pixel drawn.
    STOCHASTIC draws pixels by their share in the window's sum in TRAIN and takes their mean weighted by themselves,
    (sum of x^2) / (sum of x), in TEST; it is meant for values of at least 0, and takes no padding.
    Source: Zeiler, Fergus, "Stochastic pooling for regularization of deep convolutional neural networks", 2013.
    """

    top_range = (1, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.pooling_param
        self._method = PoolMethod[PoolingParameter.PoolMethod.Name(parameter.pool)]
        if len(top) > 1 and self._method is not PoolMethod.MAX:
            raise self.error("only pool: MAX has a second top, the index of each maximum")
        has_size = parameter.HasField("kernel_size")
        has_parts = [parameter.HasField(name) for name in ("kernel_h", "kernel_w")]
        if parameter.global_pooling and (has_size or any(has_parts)):
            raise self.error(
                "with global_pooling the kernel is the whole image: leave kernel_size, kernel_h and kernel_w out"
            )
        if not parameter.global_pooling and (has_size == any(has_parts) or (any(has_parts) and not all(has_parts))):
            raise self.error("give kernel_size, or both kernel_h and kernel_w")
        for name in ("pad", "stride"):
            named = [f"{name}_h", f"{name}_w"]
            given = [parameter.HasField(field) for field in named]
            if any(given) and (parameter.HasField(name) or not all(given)):
                raise self.error(f"give {name}, or both {named[0]} and {named[1]}")
        self._kernel = self._pair("kernel_size", "kernel")
        self._stride = self._pair("stride", "stride")
        self._pad = self._pair("pad", "pad")
        if parameter.global_pooling:
            if self._pad != (0, 0) or self._stride != (1, 1):
                raise self.error(f"global_pooling takes pad 0 and stride 1; given are {self._pad} and {self._stride}")
        elif min(self._kernel) < 1 or min(self._stride) < 1:
            raise self.error(f"kernel {self._kernel} and stride {self._stride} must be at least 1")
        elif any(pad >= kernel for pad, kernel in zip(self._pad, self._kernel, strict=True)):
            raise self.error(f"pad {self._pad} must be smaller than the kernel {self._kernel}")
        elif self._method is PoolMethod.STOCHASTIC and self._pad != (0, 0):
            raise self.error(f"pool: STOCHASTIC takes pad 0; given is {self._pad}")
        self._geometry: PoolingGeometry | None = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        if len(shape) != 4:
            raise self.error(f"{self.bottom_name(0)} is {shape}; pooling takes 4 axes (N, C, H, W)", ShapeMismatchError)
        batch, channels, *spatial = shape
        kernel = (spatial[0], spatial[1]) if self.parameter.pooling_param.global_pooling else self._kernel
        output = (self._output_size(shape, 0, kernel[0]), self._output_size(shape, 1, kernel[1]))
        geometry = PoolingGeometry(
            self._method, batch, channels, (spatial[0], spatial[1]), kernel, self._stride, self._pad, output
        )
        for blob in top:
            blob.reshape(batch, channels, *output)
        if geometry != self._geometry:
            self._geometry = geometry
            self._pooling = self._make_pooling(geometry, bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        mask = self.write(top[1]) if len(top) > 1 else None
        self._pooling.forward(self.read(bottom[0]), self.write(top[0]), mask)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            self._pooling.backward(self.read(bottom[0]), self.read_diff(top[0]), self.write_diff(bottom[0]))

    def _make_pooling(self, geometry: PoolingGeometry, dtype: npt.DTypeLike) -> Pooling:
        if self._method is not PoolMethod.STOCHASTIC:
            return self.backend.pooling(geometry, dtype)
        kind = DrawnPooling if self.context.phase == TRAIN else WeightedMeanPooling
        return kind(self, geometry, dtype)

    def _pair(self, name: str, prefix: str) -> tuple[int, int]:
        """Read a field for (height, width): each by name, or one value for both."""
        parameter = self.parameter.pooling_param
        if parameter.HasField(f"{prefix}_h"):
            return getattr(parameter, f"{prefix}_h"), getattr(parameter, f"{prefix}_w")
        value = getattr(parameter, name)
        return value, value

    def _output_size(self, shape: tuple[int, ...], axis: int, kernel: int) -> int:
        size, stride, pad = shape[2 + axis], self._stride[axis], self._pad[axis]
        room = size + 2 * pad - kernel
        if self.parameter.pooling_param.round_mode == PoolingParameter.CEIL:
            output = -(-room // stride) + 1
        else:
            output = room // stride + 1
        if pad and (output - 1) * stride >= size + pad:
            output -= 1
        where = f"{'height' if axis == 0 else 'width'} of {self.bottom_name(0)} {shape}"
        if output < 1 or kernel < 1:
            raise self.error(f"the kernel {kernel} is larger than the padded {where}: pad is {pad}", ShapeMismatchError)
        if (output - 1) * stride - pad >= size:
            raise self.error(
                f"the last window of kernel {kernel}, stride {stride}, pad {pad} starts behind the {where}, "
                "so its maximum or mean has no meaning; use round_mode: FLOOR",
                ShapeMismatchError,
            )
        return output
