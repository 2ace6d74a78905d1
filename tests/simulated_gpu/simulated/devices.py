"""The simulated GPUs: how many, how large, which is current in a thread, and which reach which.

SIMULATED_GPUS (1): how many; with 0 there is no driver. SIMULATED_GPU_BYTES (4 GiB): the memory of each.
SIMULATED_GPU_PEERS (1): whether they reach one another's memory. CUDA_VISIBLE_DEVICES: the numbers of those that this process
sees, which count from 0 again. A fork of a process that has asked for devices sees none.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from simulated.errors import CUDARuntimeError

__all__ = [
    "bus_id",
    "can_access",
    "check_device",
    "contexts",
    "current",
    "device_count",
    "enable_peer",
    "number_here",
    "physical",
    "properties",
    "select",
    "total_bytes",
]

contexts: set[int] = set()
"""The GPUs of which this process has some memory: since CUDA 12 those that were selected in any thread."""
_local = threading.local()
_peers: set[tuple[int, int]] = set()
_is_used, _is_forked = False, False


def _note_fork() -> None:
    global _is_forked
    _is_forked = _is_used


os.register_at_fork(after_in_child=_note_fork)


def _visible() -> list[int]:
    """The GPUs that this process sees, up to the first entry that names none; CUDARuntimeError where there is no driver."""
    global _is_used
    count = int(os.environ.get("SIMULATED_GPUS", "1"))
    if count == 0:
        raise CUDARuntimeError(35)
    if _is_forked:
        raise CUDARuntimeError(3, "a fork of a process that has used CUDA")
    _is_used = True
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return list(range(count))
    seen: list[int] = []
    for entry in listed.split(","):
        if not entry.strip().isdecimal() or int(entry) >= count or int(entry) in seen:
            break
        seen.append(int(entry))
    return seen


def device_count() -> int:
    """Raises CUDARuntimeError where there is none."""
    seen = _visible()
    if not seen:
        raise CUDARuntimeError(100)
    return len(seen)


def physical(device: int) -> int:
    """The number that the GPU has where all are seen."""
    return _visible()[check_device(device)]


def number_here(physical: int) -> int:
    """The number here of a GPU; a negative one if it is not seen, whose memory may be opened all the same."""
    seen = _visible()
    return seen.index(physical) if physical in seen else -1 - physical


def check_device(device: int) -> int:
    """Return the number; raises CUDARuntimeError where there is no such device."""
    if not 0 <= device < device_count():
        raise CUDARuntimeError(101)
    return int(device)


def current() -> int:
    """The device of this thread."""
    device: int | None = getattr(_local, "device", None)
    if device is None:
        device_count()
        device = _local.device = 0
    return device


def select(device: int) -> None:
    _local.device = check_device(device)
    contexts.add(device)


def total_bytes() -> int:
    return int(os.environ.get("SIMULATED_GPU_BYTES", 4 << 30))


def bus_id(device: int) -> str:
    return f"0000:{16 * (physical(device) + 1) + 11:02X}:00.0"


def can_access(device: int, peer: int) -> bool:
    """Whether it can be allowed."""
    return check_device(device) != check_device(peer) and os.environ.get("SIMULATED_GPU_PEERS", "1") == "1"


def enable_peer(device: int, peer: int) -> None:
    if not can_access(device, peer):
        raise CUDARuntimeError(101 if device == peer else 217)
    if (device, peer) in _peers:
        raise CUDARuntimeError(704)
    _peers.add((device, peer))


def disable_peer(device: int, peer: int) -> None:
    if (device, peer) not in _peers:
        raise CUDARuntimeError(705)
    _peers.remove((device, peer))


def reaches(device: int, other: int) -> bool:
    """Whether kernels on the one may use the memory of the other."""
    return device == other or (device, other) in _peers


def properties(device: int) -> dict[str, Any]:
    """The values that cudaGetDeviceProperties gives, as CuPy names them; few processors, so that kernels walk in steps."""
    number = physical(device)
    # CuPy reads the UUID as a text: up to the next 0, which without one lies behind it, where CUDA leaves what it likes.
    uuid = bytes([0x51, number + 1, *range(1, 15)]) + os.urandom(4).replace(b"\0", b"?")
    return {
        "name": b"Simulated GPU",
        "uuid": uuid,
        "totalGlobalMem": total_bytes(),
        "sharedMemPerBlock": 49152,
        "sharedMemPerBlockOptin": 232448,
        "sharedMemPerMultiprocessor": 233472,
        "reservedSharedMemPerBlock": 1024,
        "regsPerBlock": 65536,
        "regsPerMultiprocessor": 65536,
        "warpSize": 32,
        "maxThreadsPerBlock": 1024,
        "maxThreadsPerMultiProcessor": 2048,
        "maxBlocksPerMultiProcessor": 32,
        "maxThreadsDim": (1024, 1024, 64),
        "maxGridSize": (2147483647, 65535, 65535),
        "clockRate": 1980000,
        "memoryClockRate": 2619000,
        "memoryBusWidth": 5120,
        "l2CacheSize": 52428800,
        "totalConstMem": 65536,
        "major": 9,
        "minor": 0,
        "multiProcessorCount": 4,
        "asyncEngineCount": 3,
        "concurrentKernels": 1,
        "cooperativeLaunch": 1,
        "unifiedAddressing": 1,
        "managedMemory": 1,
        "canMapHostMemory": 1,
        "integrated": 0,
        "ECCEnabled": 1,
        "computeMode": 0,
        "pciDomainID": 0,
        "pciBusID": 16 * (number + 1) + 11,
        "pciDeviceID": 0,
        "textureAlignment": 512,
    }
