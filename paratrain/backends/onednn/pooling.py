"""Pooling by oneDNN, with Caffe's rounding and divisors."""

from __future__ import annotations

import numpy as np

from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.backends.onednn.arranged import Arranger, Copies
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import Algorithm, Argument, DataType, PropKind
from paratrain.backends.onednn.primitive import Array, Descriptor, Primitive, aligned, best
from paratrain.blob import Memory

__all__ = ["OneDnnPooling"]


class OneDnnPooling:
    """MAX or AVE pooling of one geometry, in the layout of the bottom, or with the channels last where the bottom is plain:
    oneDNN has no kernels for plain images. It keeps the places of the maxima.

    oneDNN divides averages by the whole kernel or by the part of it inside the image. Caffe counts the padding in, but not
    what reaches over its edge: the same only where no window does. Raises UnsupportedError for the rest.

    Where windows overlap, gradients of bfloat16 images are added up in float32, image by image: oneDNN 3.2 rounds each sum of
    two, and loses half of what the windows of a 31 x 31 average hand down.
    """

    def __init__(self, arranger: Arranger, geometry: PoolingGeometry, bottom_layout: Layout) -> None:
        self._arranger = arranger
        g, library = geometry, arranger.engine.library
        sizes = zip(g.spatial, g.output, g.kernel, g.stride, g.pad, strict=True)
        # The padding behind the image with which oneDNN, which rounds down, has as many windows as Caffe.
        pad_after = tuple(max((out - 1) * stride + kernel - n - pad, 0) for n, out, kernel, stride, pad in sizes)
        is_padded = any(g.pad)
        if g.method is PoolMethod.MAX:
            algorithm = Algorithm.POOLING_MAX
        elif g.method is not PoolMethod.AVE or (
            is_padded and any(a > b for a, b in zip(pad_after, g.pad, strict=True))
        ):
            raise UnsupportedError("pooling: Caffe's divisors")
        else:
            algorithm = (
                Algorithm.POOLING_AVERAGE_WITH_PADDING if is_padded else Algorithm.POOLING_AVERAGE_WITHOUT_PADDING
            )
        window = (g.stride, g.kernel, (0, 0), g.pad, pad_after)
        if bottom_layout.is_in_order:
            bottom_layout = Layout.channels_last(library, bottom_layout.shape, bottom_layout.dtype)
        self.bottom_layout = bottom_layout
        top = Layout.any(library, (g.batch, g.channels, *g.output), bottom_layout.dtype)
        engine, has_places = arranger.engine, g.method is PoolMethod.MAX
        forward = best(
            [Descriptor(engine, "pooling_forward", PropKind.FORWARD_TRAINING, algorithm, bottom_layout, top, *window)]
        )
        self.top_layout = forward.layout(Argument.DESTINATION)
        overlaps = any(kernel > stride for kernel, stride in zip(g.kernel, g.stride, strict=True))
        hint, diffs = forward, (bottom_layout, self.top_layout)
        if bottom_layout.dtype != DataType.F32 and overlaps:
            diffs = _one_image(bottom_layout), _one_image(self.top_layout)
            hint = best([Descriptor(engine, "pooling_forward", PropKind.FORWARD_TRAINING, algorithm, *diffs, *window)])
            if has_places:
                _check_parts(forward.layout(Argument.WORKSPACE), hint.layout(Argument.WORKSPACE), g.batch)
        self._bottom_diff, self._top_diff = diffs
        backward = best([Descriptor(engine, "pooling_backward", algorithm, *diffs, *window, hint)])
        workspace = [Argument.WORKSPACE] if has_places else []
        self._places = [aligned(forward.layout(Argument.WORKSPACE).size_bytes)] if has_places else []
        self._forward = Primitive(forward, Argument.SOURCE, Argument.DESTINATION, *workspace)
        self._backward = Primitive(backward, Argument.DESTINATION_DIFF, Argument.SOURCE_DIFF, *workspace)

    def forward(self, copies: Copies, bottom: Memory, top: Memory) -> None:
        """Write the top."""
        x = copies.read(bottom, self.bottom_layout)
        self._forward.run(x, self._arranger.write(top, self.top_layout), *self._places)

    def backward(self, copies: Copies, top_diff: Memory, bottom_diff: Memory) -> None:
        """bottom_diff = the gradient by the bottom of the last forward pass."""
        dy = copies.read(top_diff, self.top_layout, "diff")
        dx = self._arranger.write(bottom_diff, self.bottom_layout)
        if self._bottom_diff is self.bottom_layout:
            self._backward.run(dy, dx, *self._places)
        else:
            self._backward_by_image(dy, dx)

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        return [self._forward.implementation, self._backward.implementation]

    def _backward_by_image(self, dy: Array, dx: Array) -> None:
        arranger, wide_bottom, wide_top = self._arranger, self._bottom_diff, self._top_diff
        bottom, top = wide_bottom.cast(DataType.BF16), wide_top.cast(DataType.BF16)
        assert bottom is not None and top is not None
        for index in range(self.bottom_layout.shape[0]):
            above, below = _part(dy, index, top.size_bytes), _part(dx, index, bottom.size_bytes)
            places = [_part(places, index, places.size // self.bottom_layout.shape[0]) for places in self._places]
            wide_dy = arranger.scratch(wide_top.size_bytes, "pooling")
            arranger.reorder(above, top, wide_dy, wide_top)
            wide_dx = arranger.lent(wide_bottom.size_bytes)
            self._backward.run(wide_dy, wide_dx, *places)
            arranger.reorder(wide_dx, wide_bottom, below, bottom)


def _one_image(layout: Layout) -> Layout:
    """The layout of float32 values of one image of these."""
    image = layout.like((1, *layout.shape[1:]))
    wide = None if image is None else image.cast(DataType.F32)
    if image is None or wide is None:
        raise UnsupportedError(f"pooling: no float32 in the order {layout.name}")
    _check_parts(layout, image, layout.shape[0])
    return wide


def _check_parts(whole: Layout, part: Layout, count: int) -> None:
    if part.size_bytes * count != whole.size_bytes:
        raise UnsupportedError(f"pooling: {whole.name} is not image after image")


def _part(array: Array, index: int, size_bytes: int) -> Array:
    return array.view(np.uint8)[index * size_bytes : (index + 1) * size_bytes]
