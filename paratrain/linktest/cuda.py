"""CUDA for the tests of links, through CuPy's plain calls.

Not yet run on a GPU: written after the documentation of CUDA's runtime and of CuPy 14.
"""

from __future__ import annotations

from paratrain import gpu
from paratrain.errors import DeviceError
from paratrain.topology.sources.pci import normal_bus_id

__all__ = ["CupyRuntime"]


class CupyRuntime:
    """See :class:`paratrain.linktest.runtime.Runtime`.

    Blocks come straight from cudaMalloc: a handle names the whole block, so that memory of CuPy's pool, which is cut out of
    larger blocks, would be opened at the wrong place. All copies are the copy engines' (cudaMemcpyAsync): a hanging one
    leaves no kernel that spins on the GPU. Peer access to the other GPU is enabled by opening its block, for no other pair.
    """

    def __init__(self) -> None:
        self._cuda = gpu.library().cuda.runtime
        self._stream = 0

    def select(self, bus_id: str, index: int) -> None:
        device = index
        if bus_id:
            seen = [normal_bus_id(self._cuda.deviceGetPCIBusId(n)) for n in range(self._cuda.getDeviceCount())]
            if normal_bus_id(bus_id) not in seen:
                raise DeviceError(f"CUDA does not see the GPU {bus_id}; it sees {', '.join(seen) or 'none'}")
            device = seen.index(normal_bus_id(bus_id))
        self._cuda.setDevice(device)
        self._stream = self._cuda.streamCreateWithFlags(self._cuda.streamNonBlocking)

    def allocate(self, byte_count: int) -> int:
        return int(self._cuda.malloc(byte_count))

    def free(self, address: int) -> None:
        self._cuda.free(address)

    def export_block(self, address: int) -> bytes:
        return bytes(self._cuda.ipcGetMemHandle(address))

    def open_block(self, handle: bytes) -> int:
        return int(self._cuda.ipcOpenMemHandle(handle))  # cudaIpcMemLazyEnablePeerAccess is the default

    def close_block(self, address: int) -> None:
        self._cuda.ipcCloseMemHandle(address)

    def pin(self, address: int, byte_count: int) -> None:
        self._cuda.hostRegister(address, byte_count, 0)

    def unpin(self, address: int) -> None:
        self._cuda.hostUnregister(address)

    def copy(self, destination: int, source: int, byte_count: int) -> None:
        self._cuda.memcpyAsync(destination, source, byte_count, self._cuda.memcpyDefault, self._stream)

    def fill(self, address: int, value: int, byte_count: int) -> None:
        self._cuda.memsetAsync(address, value, byte_count, self._stream)

    def new_event(self) -> int:
        flags = self._cuda.eventDisableTiming | self._cuda.eventInterprocess
        return int(self._cuda.eventCreateWithFlags(flags))

    def export_event(self, event: int) -> bytes:
        return bytes(self._cuda.ipcGetEventHandle(event))

    def open_event(self, handle: bytes) -> int:
        return int(self._cuda.ipcOpenEventHandle(handle))

    def record(self, event: int) -> None:
        self._cuda.eventRecord(event, self._stream)

    def wait_for(self, event: int) -> None:
        self._cuda.streamWaitEvent(self._stream, event)

    def synchronize(self) -> None:
        self._cuda.streamSynchronize(self._stream)
