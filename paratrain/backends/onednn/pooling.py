"""Pooling by oneDNN, with Caffe's rounding and divisors."""

from __future__ import annotations

from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.backends.onednn.arranged import Arranger, Copies
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import Algorithm, Argument, PropKind
from paratrain.backends.onednn.primitive import Descriptor, Primitive, aligned, best
from paratrain.blob import Memory

__all__ = ["OneDnnPooling"]


class OneDnnPooling:
    """MAX or AVE pooling of one geometry, in the layout of the bottom, or with the channels last where the bottom is plain:
    oneDNN has no kernels for plain images. It keeps the places of the maxima.

    oneDNN divides averages by the whole kernel or by the part of it inside the image. Caffe counts the padding in, but not
    what reaches over its edge: the same only where no window does. Raises UnsupportedError for the rest.
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
        backward = best(
            [Descriptor(engine, "pooling_backward", algorithm, bottom_layout, self.top_layout, *window, forward)]
        )
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
        self._backward.run(dy, self._arranger.write(bottom_diff, self.bottom_layout), *self._places)

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        return [self._forward.implementation, self._backward.implementation]
