"""Layers that need no kernels: they compute by numpy, on the buffers in which other layers have left the values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from paratrain.backends.onednn.layout import Layout
from paratrain.blob import Blob, Memory, SyncedMemory
from paratrain.layers.onednn.base import OneDnnLayer

__all__ = ["ByValueLayer", "common_layout", "owns_memory"]

P = TypeVar("P")


def common_layout(memories: Sequence[Memory], shape: tuple[int, ...]) -> Layout | None:
    """The layout in which most of these memories hold values of ``shape``; None where all are plain, or seen in other shapes."""
    counts: dict[Layout, int] = {}
    for memory in memories:
        arrangement = memory.arrangement
        if arrangement is not None and arrangement.layout.shape == shape:
            counts[arrangement.layout] = counts.get(arrangement.layout, 0) + 1
    return max(counts, key=lambda layout: counts[layout]) if counts else None


def owns_memory(*memories: Memory) -> bool:
    """Whether all of these can be arranged: parts of other blocks cannot."""
    return all(isinstance(memory, SyncedMemory) for memory in memories)


class ByValueLayer(OneDnnLayer[P]):
    """A layer whose tops hold, at each place, a function of the bottoms' values at that place. Mixed in before the plain
    layer, whose code runs as it is: what it reads and writes are flat arrays in one layout that all blobs share.
    """

    keeps_zeros = True
    """Whether zeros, and zero gradients, make zeros: else the padding of blocks would fill with something."""
    is_by_value = True
    """False where the layer needs plain values after all."""
    keeps_values = False
    """Whether forward keeps values for backward, which then has to compute in the same layout."""

    _layout: Layout | None = None
    """The common layout during a pass; None for plain arrays."""
    _forward_layout: Layout | None = None
    _blobs: Sequence[Blob] = ()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.begin_forward(bottom, top)
        super().forward(bottom, top)  # type: ignore[safe-super]
        self.end()

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self.begin_backward(bottom, top)
        super().backward(top, propagate_down, bottom)  # type: ignore[safe-super]
        self.end()

    def begin_forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
        """Choose the layout of a forward pass; return whether there is one, or else the plain arrays are used."""
        self._choose_layout([blob.data_memory for blob in bottom], bottom, top)
        self._forward_layout = self._layout
        return self._layout is not None

    def begin_backward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
        """The same for a backward pass."""
        self._choose_layout([top[0].diff_memory], bottom, top)
        if self._layout is None:
            self._choose_layout([blob.data_memory for blob in bottom], bottom, top)
        if self.keeps_values:
            self._layout = self._forward_layout
        if self._layout is not None:
            self.read_diff(top[0])  # in place it is written next: it has to be in this layout by then
        return self._layout is not None

    def end(self) -> None:
        """The pass is over."""
        self._layout = None

    def read(self, blob: Blob) -> Any:
        return super().read(blob) if self._layout is None else self._read(blob, blob.data_memory, "data")

    def read_diff(self, blob: Blob) -> Any:
        return super().read_diff(blob) if self._layout is None else self._read(blob, blob.diff_memory, "diff")

    def write(self, blob: Blob) -> Any:
        return super().write(blob) if self._layout is None else self._write(blob.data_memory)

    def write_diff(self, blob: Blob) -> Any:
        return super().write_diff(blob) if self._layout is None else self._write(blob.diff_memory)

    def _choose_layout(self, memories: Sequence[Memory], bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._blobs = [*bottom, *top]
        all_memories = [memory for blob in self._blobs for memory in (blob.data_memory, blob.diff_memory)]
        layout = common_layout(memories, top[0].shape) if self.is_by_value and owns_memory(*all_memories) else None
        if layout is not None and (layout.is_plain or (layout.is_padded and not self.keeps_zeros)):
            layout = None
        self._layout = layout

    def _read(self, blob: Blob, memory: Memory, purpose: str) -> Any:
        assert self._layout is not None
        number = next(index for index, known in enumerate(self._blobs) if known is blob)
        return self._flat(self.copies.read(memory, self._layout, f"{purpose} {number}"))

    def _write(self, memory: Memory) -> Any:
        assert self._layout is not None
        return self._flat(self.arranger.write(memory, self._layout))

    def _flat(self, array: Any) -> Any:
        assert self._layout is not None
        return array.view(np.float32)[: self._layout.size_bytes // 4]
