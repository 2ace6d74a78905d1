"""cupy.cuda.memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from simulated import devices, forbid_in_capture, late, memory, record, wait
from simulated.copies import copy
from simulated.errors import CUDARuntimeError, OutOfMemoryError
from simulated.memory import block_at, memory_at
from simulated.pools import MemoryPool, PooledMemory

__all__ = [
    "Memory",
    "MemoryPointer",
    "MemoryPool",
    "OutOfMemoryError",
    "PooledMemory",
    "PythonFunctionAllocator",
    "UnownedMemory",
    "alloc",
    "get_allocator",
    "set_allocator",
]


class _View:
    """What all memory has."""

    ptr: int
    size: int
    device_id: int

    @property
    def device(self) -> Any:
        from cupy.cuda.device import Device

        return Device(self.device_id)

    def __int__(self) -> int:
        return self.ptr

    def view(self, offset: int) -> Any:
        """The bytes from ``offset`` on, as a buffer."""
        block = block_at(self.ptr)
        if block is None:
            return (ctypes.c_ubyte * (self.size - offset)).from_address(self.ptr + offset)
        start = block.start + self.ptr - block.address + offset
        return memoryview(block.raw)[start : block.start + block.size]


class Memory(_View):
    """Straight from cudaMalloc: another process can open it."""

    def __init__(self, size: int) -> None:
        self.size, self.device_id, self.ptr = size, devices.current(), 0
        self._block = None
        if size > 0:
            forbid_in_capture("cudaMalloc")
            try:
                self._block = memory.malloc(size, self.device_id, is_shared=True)
            except CUDARuntimeError:
                raise OutOfMemoryError(size, memory.used_bytes(self.device_id)) from None
            self._block.is_plain = True
            self.ptr = self._block.address

    def __del__(self) -> None:
        if getattr(self, "_block", None) is not None:
            late.free(self._block)  # type: ignore[arg-type]


class UnownedMemory(_View):
    """Memory that somebody else gives back."""

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        self.ptr, self.size, self._owner = ptr, size, owner
        if device_id < 0:
            block = block_at(ptr)
            if block is None:
                raise RuntimeError(
                    "UnownedMemory requires explicit device ID for a pointer that is not to device memory"
                )
            device_id = block.device
        self.device_id = device_id


PooledMemory.view = _View.view  # type: ignore[attr-defined]
PooledMemory.device = _View.device  # type: ignore[attr-defined]


class MemoryPointer:
    """A place within memory."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.ptr = mem, mem.ptr + offset

    device_id = property(lambda self: self.mem.device_id)
    device = property(lambda self: self.mem.device)

    def __int__(self) -> int:
        return int(self.ptr)

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    __radd__ = __add__

    def __sub__(self, offset: int) -> MemoryPointer:
        return self + -offset

    def _copy(self, target: int, source: int, size: int, stream: Any, is_async: bool) -> None:
        pointer = None if stream is None else stream.ptr
        if is_async:
            copy(target, source, size, pointer)
        else:
            forbid_in_capture("a copy that waits", pointer, RuntimeError)
            wait(copy(target, source, size, 0))  # in the null stream, whatever the current one is

    def copy_from_device(self, src: MemoryPointer, size: int) -> None:
        self._copy(self.ptr, src.ptr, size, None, is_async=False)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        self._copy(self.ptr, src.ptr, size, stream, is_async=True)

    def copy_from_host(self, mem: Any, size: int) -> None:
        self._copy(self.ptr, _host_address(mem), size, None, is_async=False)

    def copy_from_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        forbid_in_capture("a copy from the host", None if stream is None else stream.ptr, RuntimeError)
        self._copy(self.ptr, _host_address(mem), size, stream, is_async=True)

    def copy_to_host(self, mem: Any, size: int) -> None:
        self._copy(_host_address(mem), self.ptr, size, None, is_async=False)

    def copy_to_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        forbid_in_capture("a copy to the host", None if stream is None else stream.ptr, RuntimeError)
        self._copy(_host_address(mem), self.ptr, size, stream, is_async=True)

    def memset(self, value: int, size: int) -> None:
        forbid_in_capture("cudaMemset", error=RuntimeError)
        self._memset(value, size, 0)

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        self._memset(value, size, None if stream is None else stream.ptr)

    def _memset(self, value: int, size: int, pointer: int | None) -> None:
        if size:
            here = memory_at(self.ptr, size)
            blocks = [block for block in [block_at(self.ptr)] if block is not None]
            record(lambda: here.fill(value), pointer, blocks)


def _host_address(mem: Any) -> int:
    return int(mem.value if isinstance(mem, ctypes.c_void_p) else mem)


default_pool = MemoryPool()
_allocator: Callable[[int], Any] | None = default_pool.malloc
local = threading.local()


class PythonFunctionAllocator:
    """An allocator made of two functions of Python."""

    def __init__(self, malloc_func: Callable[[int, int], int], free_func: Callable[[int, int], None]) -> None:
        self._malloc, self._free = malloc_func, free_func

    def malloc(self, size: int) -> MemoryPointer:
        device = devices.current()
        return MemoryPointer(UnownedMemory(self._malloc(size, device), size, self, device), 0)


def plain_malloc(size: int) -> MemoryPointer:
    return MemoryPointer(Memory(size), 0)


def alloc(size: int) -> Any:
    """Return a MemoryPointer from the current allocator."""
    return get_allocator()(size)


def get_allocator() -> Callable[[int], Any]:
    found: Callable[[int], Any] | None = getattr(local, "allocator", None) or _allocator
    return plain_malloc if found is None else found


def set_allocator(allocator: Callable[[int], Any] | None = None) -> None:
    global _allocator
    _allocator = allocator
