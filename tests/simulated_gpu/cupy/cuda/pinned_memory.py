"""cupy.cuda.pinned_memory: memory of the host that the simulation knows to be pinned."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from simulated import pinned

__all__ = [
    "PinnedMemory",
    "PinnedMemoryPointer",
    "PinnedMemoryPool",
    "alloc_pinned_memory",
    "set_pinned_memory_allocator",
]


class PinnedMemory:
    """cudaHostAlloc's."""

    def __init__(self, size: int, flags: int = 0) -> None:
        self._bytes = np.full(max(size, 1), 0xFF, np.uint8)
        self.ptr, self.size = self._bytes.ctypes.data, size
        pinned.register(self.ptr, max(size, 1))

    def __del__(self) -> None:
        pinned.unregister(self.ptr)


class PinnedMemoryPointer:
    """A place in it; a buffer for numpy.frombuffer."""

    def __init__(self, mem: PinnedMemory, offset: int) -> None:
        self.mem, self.ptr = mem, mem.ptr + offset

    def __int__(self) -> int:
        return self.ptr

    def size(self) -> int:
        return self.mem.size - (self.ptr - self.mem.ptr)

    def as_array(self) -> Any:
        """The bytes, which keep the memory alive."""
        buffer = (ctypes.c_ubyte * max(self.size(), 0)).from_address(self.ptr)
        buffer._owner = self.mem  # type: ignore[attr-defined]
        return np.frombuffer(buffer, np.uint8)

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self.as_array())


class PinnedMemoryPool:
    """Keeps nothing."""

    def malloc(self, size: int) -> PinnedMemoryPointer:
        return PinnedMemoryPointer(PinnedMemory(size), 0)

    def free_all_blocks(self) -> None:
        """There are none."""

    def n_free_blocks(self) -> int:
        return 0


default_pool = PinnedMemoryPool()


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    return default_pool.malloc(size)


def set_pinned_memory_allocator(allocator: Any = None) -> None:
    """One allocator does."""
