"""How the values of an array lie in memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from ctypes import POINTER, byref, c_int, c_int64
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.onednn.library import Handle, Library, dimensions_at
from paratrain.backends.onednn.names import DataType, Query

__all__ = ["Layout"]

_BITS: dict[DataType, npt.DTypeLike] = {DataType.BF16: np.uint16, DataType.F32: np.float32}
"""How numpy, which has no bfloat16, sees values."""
_ANY = 1  # dnnl_format_tag_any
_BLOCKED = {(3, 16): 56, (3, 8): 69, (4, 16): 78, (4, 8): 102, (5, 16): 121, (5, 8): 142}
"""dnnl_aBc16b and its kin, by the number of axes and the width of a block."""


class Layout:
    """A shape, a type of values, and the place of each value in a flat buffer: a memory descriptor of oneDNN.

    Besides strides in any order of the axes a layout may have blocks: ``aBcd16b`` keeps 16 channels side by side, for
    each pixel of each group of 16; channels are filled up with zeros to a multiple of 16. Layouts compare equal when
    the same bytes mean the same values.
    """

    def __init__(self, library: Library, handle: Handle) -> None:
        self.library = library
        self.handle = handle
        self.size_bytes = library.size_bytes(handle)
        self._casts: dict[DataType, Layout | None] = {}

    @staticmethod
    def any(library: Library, shape: Sequence[int], dtype: DataType = DataType.F32) -> Layout:
        """A layout that a primitive may choose; only for making primitives."""
        handle = library.new("memory_desc", "memory_desc_create_with_tag", len(shape), tuple(shape), dtype, _ANY)
        return Layout(library, handle)

    @staticmethod
    def strided(
        library: Library, shape: Sequence[int], strides: Sequence[int], dtype: DataType = DataType.F32
    ) -> Layout:
        """Value (i, j, ...) lies at i strides[0] + j strides[1] + ...; strides count values."""
        name = "memory_desc_create_with_strides"
        return Layout(library, library.new("memory_desc", name, len(shape), tuple(shape), dtype, tuple(strides)))

    @staticmethod
    def plain(library: Library, shape: Sequence[int], dtype: DataType = DataType.F32) -> Layout:
        """C order, the layout of a numpy array."""
        return Layout.strided(library, shape, _plain_strides(shape), dtype)

    @staticmethod
    def channels_last(library: Library, shape: Sequence[int], dtype: DataType = DataType.F32) -> Layout:
        """(N, C, spatial ...) with the channels of a pixel side by side."""
        batch, *spatial = _plain_strides((shape[0], *shape[2:], shape[1]))[:-1]
        return Layout.strided(library, shape, (batch, 1, *spatial), dtype)

    @staticmethod
    def blocked(library: Library, shape: Sequence[int], width: int, dtype: DataType = DataType.F32) -> Layout | None:
        """(N, C, spatial ...) with ``width`` channels of a pixel side by side; None where oneDNN has no such layout."""
        tag = _BLOCKED.get((len(shape), width))
        if tag is None:
            return None
        made = Layout(
            library, library.new("memory_desc", "memory_desc_create_with_tag", len(shape), tuple(shape), dtype, tag)
        )
        return made if made.channel_block == width else None

    def like(self, shape: Sequence[int]) -> Layout | None:
        """The layout of the same order for values of another shape; None for orders other than the three above."""
        shape = tuple(shape)
        if shape == self.shape:
            return self
        if self.is_in_order:
            return Layout.plain(self.library, shape, self.dtype)
        if self.channel_block:
            return Layout.blocked(self.library, shape, self.channel_block, self.dtype)
        return Layout.channels_last(self.library, shape, self.dtype) if self.is_channels_last else None

    def cast(self, dtype: DataType) -> Layout | None:
        """The layout of the same order for values of another type; None where :meth:`like` knows none."""
        if dtype not in self._casts:
            self._casts[dtype] = self if dtype == self.dtype else self._cast(dtype)
        return self._casts[dtype]

    def flat(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A buffer that holds values in this layout, seen as just these, with the padding: float32, or the bits of bfloat16."""
        return array.view(_BITS[self.dtype])[: self.size_bytes // self.dtype.item_bytes]

    def blocks_axes(self, *axes: int) -> bool:
        """Whether just these axes lie in blocks, each cut once, without padding."""
        return not self.is_padded and sorted(axis for _, axis in self._blocks) == sorted(axes)

    def in_plain_order(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A flat array of float32 in this layout, seen in plain order, each axis in blocks as two: (blocks, in a block).
        No axis may be cut more than once, or padded.
        """
        cut = {axis: size for size, axis in self._blocks}
        assert self.blocks_axes(*cut)
        inner, step = {}, 1
        for size, axis in reversed(self._blocks):
            inner[axis], step = step, step * size
        shape, steps = [], []
        for axis, (length, outer_step) in enumerate(zip(self.shape, self._strides, strict=True)):
            shape += [length // cut[axis], cut[axis]] if axis in cut else [length]
            steps += [outer_step, inner[axis]] if axis in cut else [outer_step]
        return np.lib.stride_tricks.as_strided(array, shape, [4 * step for step in steps])

    @functools.cached_property
    def channel_block(self) -> int:
        """The width of the blocks of channels of a layout made by :meth:`blocked`; 0 for all others."""
        if len(self._blocks) != 1 or self._blocks[0][1] != 1:
            return 0
        width = self._blocks[0][0]
        lengths = (*self._outer_shape(self._padded_shape), width)
        in_order = tuple(
            step if length > 1 else 0 for step, length in zip(_plain_strides(lengths)[:-1], lengths[:-1], strict=True)
        )
        return width if self.key[3] == in_order else 0

    @functools.cached_property
    def is_channels_last(self) -> bool:
        """Whether this is what :meth:`channels_last` makes."""
        return len(self.shape) > 1 and self == Layout.channels_last(self.library, self.shape, self.dtype)

    @functools.cached_property
    def is_padded(self) -> bool:
        """Whether there are zeros between or behind the values, which fill up blocks."""
        return self._padded_shape != self.shape

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        return dimensions_at(self._query(Query.SHAPE, POINTER(c_int64)), self._axis_count)

    @functools.cached_property
    def dtype(self) -> DataType:
        return DataType(self._query(Query.DATA_TYPE, c_int).value)

    @functools.cached_property
    def key(self) -> tuple[Any, ...]:
        """What tells layouts apart. The stride of an axis of length 1 tells nothing."""
        padded = self._padded_shape
        strides = tuple(
            step if length > 1 else 0 for step, length in zip(self._strides, self._outer_shape(padded), strict=True)
        )
        return (self.shape, self.dtype, padded, strides, self._blocks)

    @functools.cached_property
    def is_in_order(self) -> bool:
        """Whether the values, of any type, lie in C order."""
        return self == Layout.plain(self.library, self.shape, self.dtype)

    @functools.cached_property
    def is_plain(self) -> bool:
        """Whether a blob's plain array has just this layout: float32 in C order."""
        return self.dtype == DataType.F32 and self.is_in_order

    @functools.cached_property
    def count(self) -> int:
        """The number of values, without padding."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """oneDNN's name for the order: ``abcd`` is plain, ``acdb`` has the channels last, ``aBcd16b`` is in blocks."""
        blocked = {axis for _, axis in self._blocks}
        order = sorted(range(self._axis_count), key=lambda axis: (-self._strides[axis], -self.shape[axis], axis))
        letters = "".join(chr(ord("A" if axis in blocked else "a") + axis) for axis in order)
        return letters + "".join(f"{size}{chr(ord('a') + axis)}" for size, axis in self._blocks)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"<Layout {self.shape} {self.name}>"

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self.key)

    @functools.cached_property
    def _axis_count(self) -> int:
        return int(self._query(Query.AXIS_COUNT, c_int).value)

    @functools.cached_property
    def _padded_shape(self) -> tuple[int, ...]:
        return dimensions_at(self._query(Query.PADDED_SHAPE, POINTER(c_int64)), self._axis_count)

    @functools.cached_property
    def _strides(self) -> tuple[int, ...]:
        return dimensions_at(self._query(Query.STRIDES, POINTER(c_int64)), self._axis_count)

    @functools.cached_property
    def _blocks(self) -> tuple[tuple[int, int], ...]:
        """(size, axis) of each inner block, the outermost first."""
        count = int(self._query(Query.BLOCK_COUNT, c_int).value)
        sizes, axes = (
            dimensions_at(self._query(query, POINTER(c_int64)), count)
            for query in (Query.BLOCK_SIZES, Query.BLOCK_AXES)
        )
        return tuple(zip(sizes, axes, strict=True))

    def _outer_shape(self, padded: tuple[int, ...]) -> tuple[int, ...]:
        """The lengths over which the strides go: in blocks, where there are some."""
        lengths = list(padded)
        for size, axis in self._blocks:
            lengths[axis] //= size
        return tuple(lengths)

    def _cast(self, dtype: DataType) -> Layout | None:
        if self.is_in_order:
            return Layout.plain(self.library, self.shape, dtype)
        if self.channel_block:
            return Layout.blocked(self.library, self.shape, self.channel_block, dtype)
        return Layout.channels_last(self.library, self.shape, dtype) if self.is_channels_last else None

    def _query(self, query: Query, kind: Any) -> Any:
        found = kind()
        self.library.call("memory_desc_query", self.handle, query, byref(found))
        return found


def _plain_strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1]
    for length in reversed(shape[1:]):
        strides.append(strides[-1] * length)
    return tuple(reversed(strides)) if shape else ()
