"""The gradients of 1 x 1 kernels from blocks to a plain array, by numpy where oneDNN's reorder is slow."""

from __future__ import annotations

import math

import numpy as np

from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.names import DataType
from paratrain.backends.onednn.primitive import Array

__all__ = ["Gather"]

_PAGE_BYTES = 4096


class Gather:
    """A reorder from blocks to plain rows that begin a multiple of 4096 bytes apart, run as a primitive is.

    oneDNN writes a few values to each of 16 rows in turn, which all fall into the same few lines of a core's cache: 2048 x 1024
    take it 9 to 20 ms, and numpy, which writes row by row, 2.5 ms.
    """

    implementation = "numpy"

    def __init__(self, source: Layout, target: Layout, accumulate: bool) -> None:
        self._source, self._target, self._accumulate = source, target, accumulate

    @staticmethod
    def suits(source: Layout, target: Layout) -> bool:
        """Whether this is the quicker way."""
        shape = target.shape
        return (
            source.dtype == target.dtype == DataType.F32
            and target.is_plain
            and len(shape) > 2
            and math.prod(shape[2:]) == 1
            and shape[0] >= 16
            and shape[1] * 4 % _PAGE_BYTES == 0
            and source.blocks_axes(0, 1)
        )

    def run(self, source: Array, target: Array) -> None:
        """Write, or add to, the target."""
        values = self._source.in_plain_order(source.view(np.float32))
        out = target.view(np.float32)[: self._target.count].reshape(values.shape)
        if self._accumulate:
            np.add(out, values, out=out)
        else:
            np.copyto(out, values)
