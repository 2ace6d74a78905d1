"""Blobs side by side along their channels, as parts of one, in the layouts in which they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paratrain.backends.onednn.arranged import Arranger, Copies
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.primitive import Array
from paratrain.blob import Memory

__all__ = ["OneDnnSideBySide"]


class OneDnnSideBySide:
    """(N, C_i, ...) parts of a whole (N, sum of C_i, ...): in blocks of channels where these fill their blocks, else with the
    channels last.

    Either way a part is a range of columns of the whole, seen as a matrix, so that numpy's copies do: oneDNN has plain loops
    for some of them. Raises UnsupportedError where neither layout exists.
    """

    def __init__(self, arranger: Arranger, wanted: Layout, shapes: Sequence[tuple[int, ...]]) -> None:
        self._arranger = arranger
        batch, _, *spatial = shapes[0]
        channels = [shape[1] for shape in shapes]
        if not wanted.channel_block or any(count % wanted.channel_block for count in channels):
            wanted = Layout.channels_last(arranger.engine.library, wanted.shape, wanted.dtype)
        parts = [wanted.like(shape) for shape in shapes]
        whole = wanted.like((batch, sum(channels), *spatial))
        self.parts = [layout for layout in parts if layout is not None]
        if whole is None or len(self.parts) < len(parts):
            raise UnsupportedError(f"blocks of channels with {len(spatial) + 2} axes")
        self.whole = whole
        pixels = math.prod(spatial)
        self._rows, width = (batch, pixels) if wanted.channel_block else (batch * pixels, 1)
        self._columns = [count * width for count in channels]

    def join(self, copies: Copies, parts: Sequence[Memory], whole: Memory) -> None:
        """Write the whole."""
        matrix, start = self._matrix(self._arranger.write(whole, self.whole), self.whole), 0
        for index, (memory, layout, columns) in enumerate(zip(parts, self.parts, self._columns, strict=True)):
            values = copies.read(memory, layout, f"part {index}")
            matrix[:, start : start + columns] = self._matrix(values, layout)
            start += columns

    def part(self, copies: Copies, whole: Memory, parts: Sequence[Memory | None]) -> None:
        """Write the parts, but for those that are None."""
        matrix, start = self._matrix(copies.read(whole, self.whole, "whole"), self.whole), 0
        for memory, layout, columns in zip(parts, self.parts, self._columns, strict=True):
            if memory is not None:
                self._matrix(self._arranger.write(memory, layout), layout)[...] = matrix[:, start : start + columns]
            start += columns

    def _matrix(self, array: Array, layout: Layout) -> Array:
        return layout.flat(array).reshape(self._rows, -1)
