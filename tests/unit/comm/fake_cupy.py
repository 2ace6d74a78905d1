"""As much of CuPy as `paratrain.comm.cuda` uses, on memory of the host: for what can go wrong before CUDA comes in.

The names, and the order of arguments, are those of CuPy 14. Work is done at once; addresses are real ones.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paratrain import gpu

calls: Counter[str] = Counter()
"""How often each function of the runtime was called."""


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}")
        self.status = status


pooled_bytes = [0]
"""What CuPy's pool keeps, of the 1 GiB that there are."""


def get_default_memory_pool() -> SimpleNamespace:
    return SimpleNamespace(free_all_blocks=lambda: pooled_bytes.__setitem__(0, 0))


def at(address: int, byte_count: int) -> Any:
    return np.frombuffer((ctypes.c_char * byte_count).from_address(address), np.uint8)


class Memory:
    def __init__(self, byte_count: int) -> None:
        if byte_count > (1 << 30) - pooled_bytes[0]:
            raise CUDARuntimeError(2)
        self.buffer = np.full(byte_count, 0xFF, np.uint8)
        self.ptr = self.buffer.ctypes.data
        calls["malloc"] += 1


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        assert size > 0
        assert owner is None
        assert device_id >= 0, "or CuPy asks the driver about the address"
        self.ptr = ptr


class MemoryPointer:
    def __init__(self, mem: Memory | UnownedMemory, offset: int) -> None:
        self.mem, self.ptr = mem, mem.ptr + offset


class ndarray:  # noqa: N801
    def __init__(self, shape: tuple[int], dtype: Any, memptr: MemoryPointer) -> None:
        self.count, self.dtype, self.data = shape[0], np.dtype(dtype), memptr
        self.device = SimpleNamespace(id=0)

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def __getitem__(self, piece: slice) -> ndarray:
        start, stop, _ = piece.indices(self.count)
        offset = self.data.ptr - self.data.mem.ptr + start * self.dtype.itemsize
        return ndarray((max(stop - start, 0),), self.dtype, MemoryPointer(self.data.mem, offset))

    def view(self) -> Any:
        return at(self.data.ptr, self.nbytes).view(self.dtype)


def empty(count: int, dtype: Any) -> ndarray:
    return ndarray((count,), dtype, MemoryPointer(Memory(count * np.dtype(dtype).itemsize), 0))


class Selected:
    """A device or a stream, which `with` makes the current one."""

    current: Selected | None = None

    def __enter__(self) -> Selected:
        type(self).current = self
        return self

    def __exit__(self, *_: object) -> None:
        type(self).current = None


class Device(Selected):
    def __init__(self, device: int) -> None:
        assert device == 0

    def use(self) -> None:
        Device.current = self


class Stream(Selected):
    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = 77 if non_blocking else 0

    def wait_event(self, event: Event) -> None:
        assert event.recorded_in is not None

    def synchronize(self) -> None:
        calls["streamSynchronize"] += 1


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        assert disable_timing
        self.ptr = id(self)
        self.recorded_in: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.recorded_in = stream


class RawModule:
    def __init__(self, *, code: str, options: Sequence[str], name_expressions: Sequence[str]) -> None:
        assert "__global__ void add(" in code
        self.names = name_expressions

    def get_function(self, name: str) -> Any:
        assert name in self.names
        count = int(name.removesuffix(">").split(", ")[1])

        def kernel(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            assert isinstance(Stream.current, Stream)
            assert 0 < grid[0] <= 4 * 8
            *arrays, scale, out, length = args
            assert len(arrays) == 16
            assert isinstance(length, np.int64)
            assert type(scale) is out.dtype.type
            total = arrays[0].view().copy()
            for array in arrays[1:count]:
                total += array.view()
            out.view()[...] = total * scale
            calls["add"] += 1

        return kernel


def _memset(ptr: int, value: int, size: int, stream: int) -> None:
    assert stream == 77
    at(ptr, size)[...] = value


def _memcpy(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    assert (kind, stream) == (4, 77)
    ctypes.memmove(dst, src, size)


def _open_handle(handle: bytes) -> int:
    calls["ipcOpenMemHandle"] += 1
    return int(handle.rstrip(b"\0"))


def _close_handle(ptr: int) -> None:
    calls["ipcCloseMemHandle"] += 1


def _register(ptr: int, size: int, flags: int) -> None:
    assert size > 0
    calls["hostRegister"] += 1


def _unregister(ptr: int) -> None:
    calls["hostUnregister"] += 1


def _bus_id(device: int) -> str:
    if device:
        raise CUDARuntimeError(101)
    return "0000:3b:00.0"


event_status = [0]
"""What eventQuery answers."""

runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    memcpyDefault=4,
    deviceGetPCIBusId=_bus_id,
    getDeviceProperties=lambda _: {"uuid": bytes(range(1, 17)) + b"and what lies behind", "multiProcessorCount": 4},
    memsetAsync=_memset,
    memcpyAsync=_memcpy,
    ipcGetMemHandle=lambda ptr: str(ptr).encode().ljust(64, b"\0"),
    ipcOpenMemHandle=_open_handle,
    ipcCloseMemHandle=_close_handle,
    hostRegister=_register,
    hostUnregister=_unregister,
    eventQuery=lambda _: event_status[0],
)
cuda = SimpleNamespace(
    runtime=runtime,
    Device=Device,
    Stream=Stream,
    Event=Event,
    Memory=Memory,
    UnownedMemory=UnownedMemory,
    MemoryPointer=MemoryPointer,
    get_current_stream=lambda: Stream(),
)
nccl = SimpleNamespace(available=False)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the library from now on."""
    monkeypatch.setitem(sys.modules, "cupy", sys.modules[__name__])
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", nccl)
    monkeypatch.setattr(gpu, "library", lambda: sys.modules[__name__])
    calls.clear()
    event_status[0] = 0
