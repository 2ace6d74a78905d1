"""cupy.cuda.device."""

from __future__ import annotations

import threading
from typing import Any

from simulated import devices, memory, streams
from simulated.errors import CUDARuntimeError

__all__ = ["Device", "get_device_id"]

_local = threading.local()


def get_device_id() -> int:
    return devices.current()


class Device:
    """One of the GPUs; ``with`` makes it the current one."""

    def __init__(self, device: int | Device | None = None) -> None:
        self.id = devices.current() if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __lt__(self, other: Device) -> bool:
        return self.id < other.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        stack = _local.__dict__.setdefault("stack", [])
        stack.append(devices.current())
        devices.select(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        devices.select(_local.stack.pop())

    @staticmethod
    def from_pci_bus_id(pci_bus_id: str) -> Device:
        for device in range(devices.device_count()):
            if devices.bus_id(device).lower() == pci_bus_id.lower():
                return Device(device)
        raise CUDARuntimeError(101)

    def use(self) -> None:
        devices.select(self.id)

    def synchronize(self) -> None:
        with self:
            streams.synchronize_device()

    @property
    def mem_info(self) -> tuple[int, int]:
        total = devices.total_bytes()
        return total - memory.used_bytes(devices.check_device(self.id)), total

    @property
    def compute_capability(self) -> str:
        properties = devices.properties(self.id)
        return f"{properties['major']}{properties['minor']}"

    @property
    def pci_bus_id(self) -> str:
        return devices.bus_id(self.id)

    @property
    def attributes(self) -> dict[str, Any]:
        found = devices.properties(self.id)
        return {
            "ComputeCapabilityMajor": found["major"],
            "ComputeCapabilityMinor": found["minor"],
            "L2CacheSize": found["l2CacheSize"],
            "MaxSharedMemoryPerBlock": found["sharedMemPerBlock"],
            "MaxSharedMemoryPerBlockOptin": found["sharedMemPerBlockOptin"],
            "MaxThreadsPerBlock": found["maxThreadsPerBlock"],
            "MaxThreadsPerMultiProcessor": found["maxThreadsPerMultiProcessor"],
            "MultiProcessorCount": found["multiProcessorCount"],
            "PciBusId": found["pciBusID"],
            "WarpSize": found["warpSize"],
        }
