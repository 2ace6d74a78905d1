"""cupy.cuda on the simulated GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from simulated.errors import CUDARuntimeError
from simulated.kernels import Kernel as Function
from simulated.streams import Graph, elapsed_ms

from cupy.cuda import compiler, device, graph, memory, pinned_memory, runtime, stream
from cupy.cuda.device import Device, get_device_id
from cupy.cuda.memory import (
    Memory,
    MemoryPointer,
    MemoryPool,
    PythonFunctionAllocator,
    UnownedMemory,
    alloc,
    get_allocator,
    set_allocator,
)
from cupy.cuda.pinned_memory import (
    PinnedMemory,
    PinnedMemoryPointer,
    PinnedMemoryPool,
    alloc_pinned_memory,
    set_pinned_memory_allocator,
)
from cupy.cuda.stream import Event, ExternalStream, Stream, get_current_stream

__all__ = [
    "Device",
    "Event",
    "ExternalStream",
    "Function",
    "Graph",
    "Memory",
    "MemoryPointer",
    "MemoryPool",
    "PinnedMemory",
    "PinnedMemoryPointer",
    "PinnedMemoryPool",
    "PythonFunctionAllocator",
    "Stream",
    "UnownedMemory",
    "alloc",
    "alloc_pinned_memory",
    "compiler",
    "device",
    "get_allocator",
    "get_current_stream",
    "get_device_id",
    "get_elapsed_time",
    "graph",
    "is_available",
    "memory",
    "pinned_memory",
    "runtime",
    "set_allocator",
    "set_pinned_memory_allocator",
    "stream",
    "using_allocator",
]


def is_available() -> bool:
    try:
        return runtime.getDeviceCount() > 0
    except CUDARuntimeError:
        return False


def get_elapsed_time(start_event: Any, end_event: Any) -> float:
    return elapsed_ms(start_event.ptr, end_event.ptr)


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    previous = getattr(memory.local, "allocator", None)
    memory.local.allocator = memory.plain_malloc if allocator is None else allocator
    try:
        yield
    finally:
        memory.local.allocator = previous
