"""cupy.cuda.runtime: as much of CUDA's runtime as is used, or soon will be."""

from __future__ import annotations

import os
from typing import Any

from simulated import copies, counts, devices, forbid_in_capture, ipc, late, memory, pinned, streams
from simulated.errors import CUDARuntimeError
from simulated.memory import block_at, memory_at

__all__ = ["CUDARuntimeError"]

memcpyHostToHost, memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice, memcpyDefault = range(5)  # noqa: N816
streamDefault, streamNonBlocking = 0, 1  # noqa: N816
streamLegacy, streamPerThread = 1, 2  # noqa: N816
eventDefault, eventBlockingSync, eventDisableTiming, eventInterprocess = 0, 1, 2, 4  # noqa: N816
streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = range(3)  # noqa: N816
streamCaptureStatusNone, streamCaptureStatusActive, streamCaptureStatusInvalidated = range(3)  # noqa: N816
hostAllocDefault, hostAllocPortable, hostAllocMapped, hostAllocWriteCombined = 0, 1, 2, 4  # noqa: N816
cudaIpcMemLazyEnablePeerAccess = 1  # noqa: N816
memoryTypeUnregistered, memoryTypeHost, memoryTypeDevice, memoryTypeManaged = range(4)  # noqa: N816
CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_8I, CUDA_R_8U, CUDA_R_16BF = 0, 1, 2, 3, 8, 14
cudaDevAttrMaxThreadsPerBlock, cudaDevAttrMaxSharedMemoryPerBlock = 1, 8  # noqa: N816
cudaDevAttrWarpSize, cudaDevAttrMultiProcessorCount = 10, 16  # noqa: N816
cudaDevAttrL2CacheSize, cudaDevAttrMaxSharedMemoryPerBlockOptin = 38, 97  # noqa: N816
is_hip = False

getDevice, setDevice = devices.current, devices.select  # noqa: N816
getDeviceCount, getDeviceProperties = devices.device_count, devices.properties  # noqa: N816
deviceGetPCIBusId = devices.bus_id  # noqa: N816
eventCreateWithFlags, eventDestroy = streams.create_event, streams.destroy_event  # noqa: N816
eventElapsedTime = streams.elapsed_ms  # noqa: N816
eventQuery, eventRecord, eventSynchronize = streams.query_event, streams.record_event, streams.synchronize_event  # noqa: N816
streamCreateWithFlags, streamDestroy = streams.create_stream, streams.destroy_stream  # noqa: N816
streamSynchronize, streamIsCapturing = streams.synchronize, streams.is_capturing  # noqa: N816


def deviceGetAttribute(attrib: int, device: int) -> int:
    names = {
        1: "maxThreadsPerBlock",
        8: "sharedMemPerBlock",
        10: "warpSize",
        16: "multiProcessorCount",
        38: "l2CacheSize",
        75: "major",
        76: "minor",
        97: "sharedMemPerBlockOptin",
    }
    return int(devices.properties(device)[names[attrib]])


def deviceGetByPCIBusId(pci_bus_id: str) -> int:
    from cupy.cuda.device import Device

    return Device.from_pci_bus_id(pci_bus_id).id


def driverGetVersion() -> int:
    return 13000 if int(os.environ.get("SIMULATED_GPUS", "1")) else 0


def runtimeGetVersion() -> int:
    return 13000


def deviceSynchronize() -> None:
    streams.synchronize_device()


def deviceCanAccessPeer(device: int, peer: int) -> int:
    return int(devices.can_access(device, peer))


def deviceEnablePeerAccess(peer: int) -> None:
    devices.enable_peer(devices.current(), peer)


def deviceDisablePeerAccess(peer: int) -> None:
    devices.disable_peer(devices.current(), peer)


# -- memory ------------------------------------------------------------------------------------------------------


def malloc(size: int) -> int:
    forbid_in_capture("cudaMalloc")
    block = memory.malloc(size, devices.current(), is_shared=True)
    block.is_plain = True
    return block.address


def free(ptr: int) -> None:
    if ptr:
        block = block_at(ptr)
        if block is None or block.address != ptr or not block.is_plain:
            raise CUDARuntimeError(1)
        late.free(block)


def hostAlloc(size: int, flags: int) -> int:
    from cupy.cuda.pinned_memory import PinnedMemory

    made = PinnedMemory(size, flags)
    _host_memory[made.ptr] = made
    return made.ptr


_host_memory: dict[int, Any] = {}


def freeHost(ptr: int) -> None:
    if _host_memory.pop(ptr, None) is None:
        raise CUDARuntimeError(1)


def hostRegister(ptr: int, size: int, flags: int) -> None:
    devices.current()
    pinned.register(ptr, size)


def hostUnregister(ptr: int) -> None:
    pinned.unregister(ptr)


def memGetInfo() -> tuple[int, int]:
    device = devices.current()
    return devices.total_bytes() - memory.used_bytes(device), devices.total_bytes()


def _check_kind(dst: int, src: int, kind: int) -> None:
    """Each side must be where the kind says, or anywhere for memcpyDefault."""
    places = (block_at(src) is not None, block_at(dst) is not None)
    wanted = {0: (False, False), 1: (False, True), 2: (True, False), 3: (True, True)}
    if kind != memcpyDefault and places != wanted[kind]:
        raise CUDARuntimeError(1, f"a copy of kind {kind} between addresses of other kinds")


def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    _memcpy(dst, src, size, kind, stream, waits=False)


def _memcpy(dst: int, src: int, size: int, kind: int, stream: int, *, waits: bool) -> None:
    _check_kind(dst, src, kind)
    if not size:
        return
    target, source = memory_at(dst, size), memory_at(src, size)
    blocks = [block for block in map(block_at, (dst, src)) if block is not None]
    if any(block.device != devices.current() for block in blocks[:1]) and len(blocks) == 1:
        forbid_in_capture("a copy to another GPU", stream)
    for array, address in ((target, dst), (source, src)):
        if block_at(address) is None and not pinned.is_pinned(array):
            forbid_in_capture("a copy of memory of the host that is not pinned", stream)
    if len(blocks) < 2:
        counts["download" if block_at(src) is not None else "upload"] += 1
    work = copies.copy(dst, src, size, stream)
    if waits and len(blocks) < 2:
        streams.wait(work)


def memcpy(dst: int, src: int, size: int, kind: int) -> None:
    forbid_in_capture("cudaMemcpy")
    _memcpy(dst, src, size, kind, 0, waits=True)
    counts["synchronize"] += 1


def memcpyPeerAsync(dst: int, dst_device: int, src: int, src_device: int, size: int, stream: int) -> None:
    for address, device in ((dst, dst_device), (src, src_device)):
        block = block_at(address)
        if block is None or block.device != devices.check_device(device):
            raise CUDARuntimeError(1)
    memcpyAsync(dst, src, size, memcpyDefault, stream)


def memcpy2DAsync(
    dst: int, dpitch: int, src: int, spitch: int, width: int, height: int, kind: int, stream: int
) -> None:
    if width > min(dpitch, spitch):
        raise CUDARuntimeError(12)
    for row in range(height):
        memcpyAsync(dst + row * dpitch, src + row * spitch, width, kind, stream)


def memsetAsync(ptr: int, value: int, size: int, stream: int) -> None:
    if size:
        block = block_at(ptr)
        if block is None:
            raise CUDARuntimeError(1)
        target = memory_at(ptr, size)
        streams.record(lambda: target.fill(value), stream, [block])


def memset(ptr: int, value: int, size: int) -> None:
    forbid_in_capture("cudaMemset")
    memsetAsync(ptr, value, size, 0)


# -- streams and events ------------------------------------------------------------------------------------------


def streamCreate() -> int:
    return streams.create_stream(streamDefault)


def streamQuery(stream: int) -> int:
    return streams.query(stream)


def streamGetFlags(stream: int) -> int:
    return streams.stream_of(stream).flags


def streamBeginCapture(stream: int, mode: int = streamCaptureModeRelaxed) -> None:
    streams.begin_capture(stream)


def streamWaitEvent(stream: int, event: int, flags: int = 0) -> None:
    if event not in _opened_events:
        streams.wait_event(stream, event)


def eventCreate() -> int:
    return streams.create_event(eventDefault)


# -- other processes ---------------------------------------------------------------------------------------------

ipcGetMemHandle, ipcCloseMemHandle = ipc.export_memory, ipc.close_memory  # noqa: N816
_opened_events: set[int] = set()


def ipcOpenMemHandle(handle: bytes, flags: int = cudaIpcMemLazyEnablePeerAccess) -> int:
    return ipc.open_memory(handle)


def ipcGetEventHandle(event: int) -> bytes:
    """Work is done before its event is recorded, so that there is nothing to wait for in another process."""
    if not streams._event(event).flags & eventInterprocess:
        raise CUDARuntimeError(1)
    return b"event".ljust(64, b"\0")


def ipcOpenEventHandle(handle: bytes) -> int:
    if not handle.startswith(b"event"):
        raise CUDARuntimeError(1)
    event = streams.create_event(eventInterprocess | eventDisableTiming)
    _opened_events.add(event)
    return event
