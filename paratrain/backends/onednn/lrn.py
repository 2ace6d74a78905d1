"""Local response normalization across channels by oneDNN."""

from __future__ import annotations

from paratrain.backends.base import LocalResponseGeometry
from paratrain.backends.onednn.arranged import Arranger, Copies
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import Algorithm, Argument, DataType, PropKind
from paratrain.backends.onednn.primitive import Descriptor, Primitive, aligned, best
from paratrain.blob import Memory

__all__ = ["OneDnnLocalResponseNormalization"]

_SIZES = (3, 5)
"""Asked for size 1, oneDNN 3.2 crashes. From 7 on its gradients are wrong where channels come last and do not fill vectors."""

_VECTOR = 16
"""Of bfloat16, channels that come last and do not fill vectors get wrong gradients for every size."""


class OneDnnLocalResponseNormalization:
    """LRN of one geometry, in the layout of the bottom, or with the channels last where the bottom is plain.

    oneDNN divides alpha by the size as Caffe does. It keeps what backward needs of the last forward pass.
    Raises UnsupportedError where oneDNN has no kernel, and for sizes other than 3 and 5.
    """

    def __init__(self, arranger: Arranger, geometry: LocalResponseGeometry, bottom_layout: Layout) -> None:
        if geometry.size not in _SIZES:
            raise UnsupportedError(f"lrn: local_size {geometry.size}")
        self._arranger = arranger
        library, engine = arranger.engine.library, arranger.engine
        if bottom_layout.is_in_order and len(geometry.shape) > 2:
            bottom_layout = Layout.channels_last(library, geometry.shape, bottom_layout.dtype)
        if bottom_layout.dtype != DataType.F32 and bottom_layout.is_channels_last and geometry.shape[1] % _VECTOR:
            raise UnsupportedError(f"lrn: {geometry.shape[1]} channels of bfloat16 that come last")
        self.layout = layout = bottom_layout
        kind = Algorithm.LRN_ACROSS_CHANNELS
        settings = (geometry.size, geometry.alpha, geometry.beta, geometry.k)
        forward = best([Descriptor(engine, "lrn_forward", PropKind.FORWARD_TRAINING, kind, layout, layout, *settings)])
        backward = best([Descriptor(engine, "lrn_backward", kind, layout, layout, layout, *settings, forward)])
        size_bytes = forward.layout(Argument.WORKSPACE).size_bytes
        workspace = [Argument.WORKSPACE] if size_bytes else []
        self._kept = [aligned(size_bytes)] if size_bytes else []
        self._forward = Primitive(forward, Argument.SOURCE, Argument.DESTINATION, *workspace)
        self._backward = Primitive(
            backward, Argument.SOURCE, Argument.DESTINATION_DIFF, Argument.SOURCE_DIFF, *workspace
        )

    def forward(self, copies: Copies, bottom: Memory, top: Memory) -> None:
        """Write the top."""
        x = copies.read(bottom, self.layout)
        self._forward.run(x, self._arranger.write(top, self.layout), *self._kept)

    def backward(self, copies: Copies, bottom: Memory, top_diff: Memory, bottom_diff: Memory) -> None:
        """bottom_diff = the gradient by the bottom, which is that of the last forward pass."""
        x, dy = copies.read(bottom, self.layout), copies.read(top_diff, self.layout, "diff")
        self._backward.run(x, dy, self._arranger.write(bottom_diff, self.layout), *self._kept)

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        return [self._forward.implementation, self._backward.implementation]
