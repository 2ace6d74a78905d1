"""Blobs in the layouts of primitives: values stay in the layout that the last primitive chose until somebody needs another."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from paratrain.backends.onednn.gather import Gather
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.names import Argument, DataType
from paratrain.backends.onednn.primitive import Arena, Array, Descriptor, Engine, Primitive, aligned
from paratrain.blob import Memory, SyncedMemory

__all__ = ["ArrangedArray", "Arranger", "Copies"]

K = TypeVar("K")
V = TypeVar("V")

_MOST_REORDERS = 2048
"""Built ones that are kept, the latest; GoogLeNet has 150. Net after net on one backend would gather ever more."""
_MOST_COPIES = 8
"""For one purpose of a layer: batches of so many sizes find their buffers again."""


class ArrangedArray:
    """A flat buffer and the layout of the values in it; what a blob's memory keeps beside, or in place of, its plain array."""

    def __init__(self, arranger: Arranger, layout: Layout, memory: SyncedMemory | None = None) -> None:
        self._arranger = arranger
        self.layout = layout
        # A place that others have used has something in the padding, which has to be zero.
        place = None if memory is None or layout.is_padded else memory.take_place(layout.size_bytes, self)
        self.array = aligned(layout.size_bytes) if place is None else place

    def write_plain(self, host: Array) -> None:
        """Write the values to the first of the flat ``host`` array, in plain order."""
        self._arranger.reorder(self.array, self.layout, host, self._arranger.plain(self.layout.shape))


class Arranger:
    """Moves values between layouts, and gives blobs' memories to primitives in the layouts they ask for.

    ``dtype`` is what convolutions take and make, and with them what blobs hold between layers. Whatever is plain is float32.
    """

    def __init__(self, engine: Engine, dtype: DataType = DataType.F32) -> None:
        self.engine = engine
        self.dtype = dtype
        self.workspace = Arena()
        """For values that nobody needs once the next primitive has run, such as weights in the layout of one primitive."""
        self._scratch: dict[str, Arena] = {}
        self._reorders: dict[tuple[Layout, Layout, bool], Primitive | Gather] = {}
        self._plain: dict[tuple[int, ...], Layout] = {}

    def plain(self, shape: tuple[int, ...]) -> Layout:
        """The plain layout of float32 values of this shape."""
        layout = self._plain.get(shape)
        if layout is None:
            layout = _limited(self._plain, _MOST_REORDERS)[shape] = Layout.plain(self.engine.library, shape)
        return layout

    def reorder(
        self, source: Array, source_layout: Layout, target: Array, target_layout: Layout, *, accumulate: bool = False
    ) -> None:
        """Write (or with ``accumulate`` add) the values of one flat array to another of another layout."""
        if source_layout == target_layout and source_layout.is_plain:
            values, out = source_layout.flat(source), source_layout.flat(target)
            if accumulate:
                np.add(out, values, out=out)
            else:
                np.copyto(out, values)
            return
        key = (source_layout, target_layout, accumulate)
        primitive = self._reorders.get(key)
        if primitive is None:
            primitive = _limited(self._reorders, _MOST_REORDERS)[key] = self._build_reorder(*key)
        primitive.run(source, target)

    def lent(self, size_bytes: int) -> Array:
        """The workspace, which holds at least so many bytes."""
        self.workspace.reserve(size_bytes)
        return self.workspace.array

    def scratch(self, size_bytes: int, purpose: str) -> Array:
        """Memory that all layers use in turn, each for one pass; a block of its own for each ``purpose``."""
        arena = self._scratch.setdefault(purpose, Arena())
        arena.reserve(size_bytes)
        return arena.array

    def layout_of(self, memory: Memory, shape: tuple[int, ...]) -> Layout:
        """The layout in which the newest values lie, seen as an array of ``shape``."""
        arrangement = memory.arrangement
        if arrangement is not None and arrangement.layout.shape == shape:
            layout: Layout = arrangement.layout
            return layout
        return self.plain(shape)

    def write(self, memory: Memory, layout: Layout) -> Array:
        """Return the flat array, in ``layout``, that is about to get the newest values of ``memory``: all are to be
        written. Where these lie in ``layout`` already it still holds them, so that a layer may work in place.
        """
        if layout.is_plain:
            return memory.mutable_host()
        assert isinstance(memory, SyncedMemory), "parts of other blocks stay plain"
        kept: Any = memory.kept_arrangement
        if kept is None or kept.layout != layout:
            kept = ArrangedArray(self, layout, memory)
        memory.arrange(kept)
        array: Array = kept.array
        return array

    def _build_reorder(self, source: Layout, target: Layout, accumulate: bool) -> Primitive | Gather:
        if Gather.suits(source, target):
            return Gather(source, target, accumulate)
        engine = self.engine
        descriptor = Descriptor(engine, "reorder", source, engine.handle, target, engine.handle, accumulate=accumulate)
        return Primitive(descriptor, Argument.SOURCE, Argument.DESTINATION)


class Copies:
    """Reads blobs' memories in the layouts that a layer's primitives ask for, with copies where they lie in another.

    A copy serves until the memory it was made of is written again, so that backward finds what forward has made.
    """

    def __init__(self, arranger: Arranger) -> None:
        self._arranger = arranger
        self._made: dict[tuple[str, Layout], tuple[Array, Memory, int]] = {}

    def read(self, memory: Memory, layout: Layout, purpose: str = "") -> Array:
        """Return the newest values of ``memory`` in ``layout``, for reading. ``purpose`` tells apart arrays of one layout that
        are needed at the same time.

        The first layout that is asked of plain values stays with the memory, for other layers to find.
        """
        arranger = self._arranger
        arrangement = memory.arrangement
        if arrangement is not None and arrangement.layout == layout:
            array: Array = arrangement.array
            return array
        if layout.is_plain:
            return memory.host()
        if arrangement is None and isinstance(memory, SyncedMemory):
            plain, kept = memory.host(), memory.kept_arrangement
            if kept is None or kept.layout != layout:
                kept = ArrangedArray(arranger, layout, memory)
            arranger.reorder(plain, arranger.plain(layout.shape), kept.array, layout)
            memory.add_arrangement(kept)
            found: Array = kept.array
            return found
        made = self._made.get((purpose, layout))
        if made is not None and made[1] is memory and made[2] == memory.version:
            return made[0]
        copy = self._new_copy(purpose, layout) if made is None else made[0]
        if arrangement is not None and arrangement.layout.shape == layout.shape:
            arranger.reorder(arrangement.array, arrangement.layout, copy, layout)
        else:
            arranger.reorder(memory.host(), arranger.plain(layout.shape), copy, layout)
        self._made[purpose, layout] = (copy, memory, memory.version)
        return copy

    def clear(self) -> None:
        """Give the copies' memory back."""
        self._made.clear()

    def _new_copy(self, purpose: str, layout: Layout) -> Array:
        alike = [key for key in self._made if key[0] == purpose]
        if len(alike) >= _MOST_COPIES:
            del self._made[alike[0]]
        return aligned(layout.size_bytes)


def _limited(made: dict[K, V], most: int) -> dict[K, V]:
    """The same dictionary, with room for one more: without its oldest entry where it is full."""
    if len(made) >= most:
        del made[next(iter(made))]
    return made
