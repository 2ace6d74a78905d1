"""A part of a block of memory, such as one parameter in the array of all."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain.blob.synced_memory import Device, HostArray, Memory

__all__ = ["MemorySlice", "whole_block"]


class MemorySlice:
    """Values ``start`` to ``stop`` of another memory: the state is the whole block's."""

    def __init__(self, whole: Memory, start: int, stop: int) -> None:
        assert 0 <= start <= stop <= whole.count
        self._whole = whole
        self._range = slice(start, stop)
        self._seen: HostArray | None = None
        self._part: HostArray | None = None

    @property
    def whole(self) -> Memory:
        """The memory that this is a part of."""
        return self._whole

    @property
    def count(self) -> int:
        return self._range.stop - self._range.start

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._whole.dtype

    @property
    def version(self) -> int:
        """Rises whenever somebody takes values of the whole block for writing."""
        return self._whole.version

    @property
    def arrangement(self) -> None:
        """None: only whole blocks are ever arranged."""
        return None

    def host(self) -> HostArray:
        return self._part_of(self._whole.host())

    def mutable_host(self) -> HostArray:
        return self._part_of(self._whole.mutable_host())

    def device(self, device: Device) -> Any:
        return self._whole.device(device)[self._range]

    def mutable_device(self, device: Device) -> Any:
        return self._whole.mutable_device(device)[self._range]

    def _part_of(self, whole: HostArray) -> HostArray:
        """The same array for the same ``whole``: who remembers where it lies need not ask again."""
        if whole is not self._seen or self._part is None:
            self._seen, self._part = whole, whole[self._range]
        return self._part


def whole_block(memory: Memory) -> Memory:
    """The memory that ``memory`` is a part of, or of whose part; itself where it is none."""
    while isinstance(memory, MemorySlice):
        memory = memory.whole
    return memory
