"""A value added to each channel, and its gradient: for channels that oneDNN cannot normalize, such as three that come last."""

from __future__ import annotations

import numpy as np

from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import Algorithm, Argument
from paratrain.backends.onednn.primitive import Array, Descriptor, Primitive, aligned, best

__all__ = ["OneDnnChannelBias"]


class OneDnnChannelBias:
    """y = x + b for each channel of (N, C, ...), in plain order or with the channels last.

    b (C,) is added along one axis of a matrix, or of one for each image; db is the product of these with ones. b and db are
    float32, whatever the type of the others. Raises UnsupportedError for other layouts, and where oneDNN has no kernel.
    """

    def __init__(self, arranger: Arranger, layout: Layout) -> None:
        self.layout = layout
        batch, channels = layout.shape[:2]
        pixels = layout.count // (batch * channels)
        is_last = layout.is_channels_last
        shapes: tuple[tuple[int, ...], ...]
        if is_last:
            rows = batch * pixels
            shapes = (rows, channels), (1, channels), (1, rows), (1, channels)
        elif layout.is_in_order:
            shapes = (batch, channels, pixels), (1, channels, 1), (1, pixels, 1), (batch, channels, 1)
        else:
            raise UnsupportedError(f"a value for each channel of {layout.name}")
        engine = arranger.engine
        values, ones = (Layout.plain(engine.library, shapes[index], layout.dtype) for index in (0, 2))
        bias, sums = arranger.plain(shapes[1]), arranger.plain(shapes[3])
        places = (Argument.SOURCE, Argument.WEIGHTS) if is_last else (Argument.WEIGHTS, Argument.SOURCE)
        factors = (ones, values) if is_last else (values, ones)
        added = best([Descriptor(engine, "binary", Algorithm.BINARY_ADD, values, bias, values)])
        summed = best([Descriptor(engine, "matmul", *factors, None, sums)])
        self._add = Primitive(added, Argument.SOURCE, Argument.SOURCE_1, Argument.DESTINATION)
        self._sum = Primitive(summed, *places, Argument.DESTINATION)
        self._ones = aligned(ones.size_bytes)
        arranger.reorder(np.ones(ones.count, np.float32), arranger.plain(ones.shape), self._ones, ones)
        self._sums = aligned(sums.size_bytes).view(np.float32).reshape(-1, channels)

    def forward(self, x: Array, y: Array, bias: Array) -> None:
        """Write y, which may be x."""
        self._add.run(x, bias, y)

    def backward(self, dy: Array, bias_diff: Array) -> None:
        """Write the gradient by b."""
        self._sum.run(self._ones, dy, self._sums)
        np.add.reduce(self._sums, axis=0, out=bias_diff)

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        return [self._add.implementation, self._sum.implementation]
