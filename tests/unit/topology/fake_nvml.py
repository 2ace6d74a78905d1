"""A stand-in for the module pynvml, every answer of which comes from one immutable model of a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What a refused question raises."""


class LibraryNotFoundError(NVMLError):
    """What `nvmlInit` raises on a machine without a driver."""


@dataclass(frozen=True)
class FakeGpu:
    name: str = "NVIDIA A100-SXM4-80GB"
    bus_id: str = "00000000:07:00.0"
    uuid: str = "GPU-0"
    compute_capability: tuple[int, int] = (8, 0)
    numa_node: int = 0
    mig: bool = False
    nvlinks: tuple[str, ...] = ()  # the bus id at the other end of each port; "switch"; "" for a port that is down


@dataclass(frozen=True)
class FakeMachine:
    gpus: tuple[FakeGpu, ...] = ()
    ancestor: dict[tuple[int, int], int] = field(default_factory=dict)  # NVML's levels, 50 where nothing is said
    p2p: dict[tuple[int, int], int] = field(default_factory=dict)  # NVML's status, 0 where nothing is said
    unsupported: frozenset[str] = frozenset()
    init_error: Exception | None = None


class FakeNvml:
    """The functions of pynvml; a handle is the index of a GPU. Asking for anything else is an AttributeError."""

    NVML_NVLINK_MAX_LINKS = 18
    NVMLError = NVMLError

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.open = 0
        self.asked: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name.startswith("nvml"):
            self.asked.add(name)
            if name in self.machine.unsupported:
                return self._refuse
        return value

    def _refuse(self, *arguments: object) -> Callable[..., Any]:
        raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        if self.machine.init_error is not None:
            raise self.machine.init_error
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 13000

    def nvmlDeviceGetCount(self) -> int:
        return len(self.machine.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self.machine.gpus[handle].name.encode()  # as older versions of pynvml answer

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return self.machine.gpus[handle].uuid

    def nvmlDeviceGetPciInfo_v3(self, handle: int) -> Any:
        return SimpleNamespace(busId=self.machine.gpus[handle].bus_id.upper().encode())

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=80 * 2**30, free=79 * 2**30, used=2**30)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return self.machine.gpus[handle].compute_capability

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        return [int(self.machine.gpus[handle].mig)] * 2

    def nvmlDeviceGetMemoryAffinity(self, handle: int, words: int, scope: int) -> list[int]:
        return [1 << self.machine.gpus[handle].numa_node] + [0] * (words - 1)

    def nvmlDeviceGetCpuAffinity(self, handle: int, words: int) -> list[int]:
        return [0xFFFF_0000_0000_FFFF, 1] + [0] * (words - 2)

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: int) -> int:
        return 4

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: int) -> int:
        return 16

    def nvmlDeviceGetNumGpuCores(self, handle: int) -> int:
        return 6912

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:
        return 1410

    def _port(self, handle: int, port: int) -> str:
        ports = self.machine.gpus[handle].nvlinks
        if port >= len(ports):
            raise NVMLError("Invalid Argument")
        return ports[port]

    def nvmlDeviceGetNvLinkState(self, handle: int, port: int) -> int:
        return int(self._port(handle, port) != "")

    def nvmlDeviceGetNvLinkCapability(self, handle: int, port: int, capability: int) -> int:
        return int(self._port(handle, port) != "")

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: int, port: int) -> int:
        return 2 if self._port(handle, port) == "switch" else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: int, port: int) -> Any:
        remote = self._port(handle, port)
        return SimpleNamespace(busId="FFFFFFFF:FF:FF.0" if remote == "switch" else remote.upper())

    def nvmlDeviceGetFieldValues(self, handle: int, wanted: list[int | tuple[int, int]]) -> list[Any]:
        number, scope = wanted[0] if isinstance(wanted[0], tuple) else (wanted[0], 0)
        ports = self.machine.gpus[handle].nvlinks
        if number == 147:
            value = ports.count("switch")
        elif number == 165 and scope < len(ports):
            value = int(ports[scope] != "")
        else:
            return [SimpleNamespace(nvmlReturn=3, value=SimpleNamespace(uiVal=0))]
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=value))]

    def nvmlDeviceGetTopologyCommonAncestor(self, one: int, other: int) -> int:
        return self.machine.ancestor.get((min(one, other), max(one, other)), 50)

    def nvmlDeviceGetP2PStatus(self, one: int, other: int, index: int) -> int:
        if not isinstance(index, int):
            raise TypeError("the index is a number")
        return self.machine.p2p.get((one, other), 0)
