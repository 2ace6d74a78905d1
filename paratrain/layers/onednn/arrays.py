"""Layers that need no kernels: they compute by numpy, on the buffers in which other layers have left the values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.names import DataType
from paratrain.blob import Blob, Memory, SyncedMemory
from paratrain.layers.base import LayerContext
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.proto import LayerParameter

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
    layer, whose code runs as it is: what it reads and writes are flat float32 arrays in one layout that all blobs share.
    Where that is one of bfloat16, they are working memory for one pass: what is written is rounded at its end.
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

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._widened: dict[str, Any] = {}
        self._written: dict[str, tuple[Memory, Any]] = {}

    @property
    def layout(self) -> Layout:
        """The common layout during a pass that has one."""
        assert self._layout is not None
        return self._layout

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
            # In place it is written next: it has to be in this layout by then.
            self.read_arranged(top[0], top[0].diff_memory, "diff")
        return self._layout is not None

    def end(self) -> None:
        """The pass is over."""
        for memory, values in self._written.values():
            self.arranger.reorder(values, self._wide, self.arranger.write(memory, self.layout), self.layout)
        self._widened.clear()
        self._written.clear()
        self._layout = None

    def read(self, blob: Blob) -> Any:
        return super().read(blob) if self._layout is None else self._read(blob, blob.data_memory, "data")

    def read_diff(self, blob: Blob) -> Any:
        return super().read_diff(blob) if self._layout is None else self._read(blob, blob.diff_memory, "diff")

    def write(self, blob: Blob) -> Any:
        return super().write(blob) if self._layout is None else self._write(blob, blob.data_memory, "data")

    def write_diff(self, blob: Blob) -> Any:
        return super().write_diff(blob) if self._layout is None else self._write(blob, blob.diff_memory, "diff")

    def read_arranged(self, blob: Blob, memory: Memory, purpose: str) -> Any:
        """The flat values of a blob's memory in the common layout, as they lie there."""
        return self.layout.flat(self.copies.read(memory, self.layout, self._name(blob, purpose)))

    def _choose_layout(self, memories: Sequence[Memory], bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._blobs = [*bottom, *top]
        all_memories = [memory for blob in self._blobs for memory in (blob.data_memory, blob.diff_memory)]
        layout = common_layout(memories, top[0].shape) if self.is_by_value and owns_memory(*all_memories) else None
        if layout is not None and (layout.is_plain or (layout.is_padded and not self.keeps_zeros)):
            layout = None
        if layout is not None and layout.cast(DataType.F32) is None:
            layout = None
        self._layout = layout

    def _read(self, blob: Blob, memory: Memory, purpose: str) -> Any:
        values, name = self.read_arranged(blob, memory, purpose), self._name(blob, purpose)
        if self.layout.dtype == DataType.F32:
            return values
        if name not in self._widened:
            self.arranger.reorder(values, self.layout, self._working_memory(name), self._wide)
        return self._widened[name]

    def _write(self, blob: Blob, memory: Memory, purpose: str) -> Any:
        if self.layout.dtype == DataType.F32:
            return self.layout.flat(self.arranger.write(memory, self.layout))
        name = self._name(blob, purpose)
        is_in_place = sum(known is blob for known in self._blobs) > 1
        values = self._read(blob, memory, purpose) if is_in_place else self._working_memory(name)
        self._written[name] = (memory, values)
        return values

    @property
    def _wide(self) -> Layout:
        """The common layout, of float32."""
        wide = self.layout.cast(DataType.F32)
        assert wide is not None
        return wide

    def _working_memory(self, name: str) -> Any:
        values = self._widened[name] = self._wide.flat(self.arranger.scratch(self._wide.size_bytes, name))
        return values

    def _name(self, blob: Blob, purpose: str) -> str:
        return f"{purpose} {next(index for index, known in enumerate(self._blobs) if known is blob)}"
