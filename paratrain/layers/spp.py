"""SPP: spatial pyramid pooling, a fixed number of values for images of any size."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.pooling import PoolingLayer
from paratrain.proto import LayerParameter
from paratrain.proto.caffe_pb2 import PoolingParameter, SPPParameter

__all__ = ["SPPLayer"]


@register_layer("SPP")
class SPPLayer(Layer):
    """Pools the image into grids of 1 x 1, 2 x 2 ... 2^(h - 1) squares and lists all their values, h = ``pyramid_height``.

    Bottom (N, C, H, W), top (N, C (1 + 4 + ... + 4^(h - 1))), grid after grid; with h = 1 (N, C, 1, 1). Level i is a
    Pooling by the method ``pool`` (MAX, AVE, STOCHASTIC) with kernel = stride = ceil(size / 2^i) and
    pad = ceil((kernel 2^i - size) / 2) along each axis; images too small for the finest grid are refused. dx = the sum of
    the gradients of the levels. ``engine`` changes nothing here.
    Source: He, Zhang, Ren, Sun, "Spatial pyramid pooling in deep convolutional networks", 2014.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._height = self.parameter.spp_param.pyramid_height
        if self._height < 1:
            raise self.error("spp_param.pyramid_height must be given and be at least 1")
        self._image_shape: tuple[int, ...] | None = None
        self._levels: list[PoolingLayer] = []
        self._pooled: list[Blob] = []

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        if len(shape) != 4 or 0 in shape[2:]:
            raise self.error(f"{self.bottom_name(0)} is {shape}; SPP takes images (N, C, H, W)", ShapeMismatchError)
        if shape[2:] == self._image_shape:
            for level, pooled in zip(self._levels, self._pooled, strict=True):
                level.reshape(bottom, [pooled])
        else:
            self._pooled = [Blob(dtype=bottom[0].dtype) for _ in range(self._height)]
            self._levels = [self._make_level(number, bottom, self._pooled[number]) for number in range(self._height)]
            self._image_shape = shape[2:]
            # Levels but the first write their gradient here, from where it is added to the bottom's.
            self._part = Blob(shape, bottom[0].dtype)
        if self._height == 1:
            top[0].reshape_like(self._pooled[0])
        else:
            top[0].reshape(shape[0], sum(pooled.count_between(1) for pooled in self._pooled))
        self._part.reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        y = self.write(top[0]).reshape(bottom[0].shape[0], top[0].count_between(1))
        start = 0
        for level, pooled in zip(self._levels, self._pooled, strict=True):
            level.forward(bottom, [pooled])
            stop = start + pooled.count_between(1)
            y[:, start:stop] = self.read(pooled).reshape(y.shape[0], stop - start)
            start = stop

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        dy = self.read_diff(top[0]).reshape(bottom[0].shape[0], top[0].count_between(1))
        if self._part.data_memory is not bottom[0].data_memory:
            self._part.share_data(bottom[0])
        start = 0
        for number, (level, pooled) in enumerate(zip(self._levels, self._pooled, strict=True)):
            stop = start + pooled.count_between(1)
            self.write_diff(pooled).reshape(dy.shape[0], stop - start)[...] = dy[:, start:stop]
            level.backward([pooled], [True], [self._part] if number else bottom)
            if number:
                bottom_diff = self.write_diff(bottom[0])
                bottom_diff += self.read_diff(self._part)
            start = stop

    def _make_level(self, number: int, bottom: Sequence[Blob], pooled: Blob) -> PoolingLayer:
        """Return the pooling into a grid of 2^number x 2^number squares, set up."""
        bins = 2**number
        kernel = [-(-size // bins) for size in bottom[0].shape[2:]]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, bottom[0].shape[2:], strict=True)]
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            raise self.error(
                f"{self.bottom_name(0)} {bottom[0].shape} cannot be cut into the {bins} x {bins} squares of level {number}: "
                f"the kernel would be {tuple(kernel)} and the pad {tuple(pad)}; lower pyramid_height or enlarge the image",
                ShapeMismatchError,
            )
        parameter = LayerParameter(name=f"{self.name} level {number}", type="Pooling", bottom=self.parameter.bottom)
        parameter.top.append(f"level {number}")
        pooling = PoolingParameter(
            pool=SPPParameter.PoolMethod.Name(self.parameter.spp_param.pool),
            kernel_h=kernel[0],
            kernel_w=kernel[1],
            stride_h=kernel[0],
            stride_w=kernel[1],
            pad_h=pad[0],
            pad_w=pad[1],
        )
        parameter.pooling_param.CopyFrom(pooling)
        level = PoolingLayer(parameter, self.context)
        level.set_up(bottom, [pooled])
        return level
