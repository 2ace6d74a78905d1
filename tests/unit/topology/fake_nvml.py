"""A stand-in for the module pynvml, every answer of which comes from one immutable model of a machine."""

from __future__ import annotations

import ctypes
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
    nvlinks: tuple[str, ...] = ()  # what is at the other end of each port: a bus id, or one of the words below
    board: int | None = None
    fabric_state: int = 0
    display: bool = False
    width_now: int = 16
    generation_now: int = 1  # the GPU is idle
    performance_state: int = 8


DOWN = ""  # a port without a link
SWITCH = "switch"  # an NVSwitch, which the driver calls by that name
NAMELESS = "nameless"  # something that the driver gives neither a kind nor a bus id
PROCESSOR = "processor"  # as on POWER9


@dataclass(frozen=True)
class FakeMachine:
    gpus: tuple[FakeGpu, ...] = ()
    ancestor: dict[tuple[int, int], int] = field(default_factory=dict)  # NVML's levels, 50 where nothing is said
    p2p: dict[tuple[int, int], int] = field(default_factory=dict)  # NVML's status, 0 where nothing is said
    unsupported: frozenset[str] = frozenset()
    error: Exception = field(default_factory=lambda: NVMLError("Not Supported"))  # what an unsupported function raises
    init_error: Exception | None = None
    lost: frozenset[int] = frozenset()  # GPUs that the driver counts and cannot open


class FabricInfo(ctypes.Structure):
    _fields_ = (
        ("clusterUuid", ctypes.c_uint8 * 16),
        ("status", ctypes.c_uint),
        ("cliqueId", ctypes.c_uint32),
        ("state", ctypes.c_uint8),
    )


class FakeNvml:
    """The functions of pynvml; a handle is the index of a GPU. Asking for anything else is an AttributeError."""

    NVML_NVLINK_MAX_LINKS = 18
    NVMLError = NVMLError
    c_nvmlGpuFabricInfo_t = FabricInfo  # noqa: N815 (pynvml's name)

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
        raise self.machine.error

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
        if index in self.machine.lost:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self.machine.gpus[handle].name.encode()  # as older versions of pynvml answer

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return self.machine.gpus[handle].uuid

    def nvmlDeviceGetPciInfo_v3(self, handle: int) -> Any:
        bus_id = self.machine.gpus[handle].bus_id.upper()
        return SimpleNamespace(busId=bus_id.encode(), busIdLegacy=bus_id[4:].encode())

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:
        return SimpleNamespace(busId=self.machine.gpus[handle].bus_id.upper()[4:])  # a domain of 4 digits

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

    def nvmlDeviceGetNumaNodeId(self, handle: int) -> int:
        return 2 + self.machine.gpus[handle].numa_node

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: int) -> int:
        return 4

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: int) -> int:
        return 16

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: int) -> int:
        return self.machine.gpus[handle].generation_now

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: int) -> int:
        return self.machine.gpus[handle].width_now

    def nvmlDeviceGetPerformanceState(self, handle: int) -> int:
        return self.machine.gpus[handle].performance_state

    def nvmlDeviceGetDisplayActive(self, handle: int) -> int:
        return int(self.machine.gpus[handle].display)

    def nvmlDeviceGetMultiGpuBoard(self, handle: int) -> int:
        return int(self.machine.gpus[handle].board is not None)

    def nvmlDeviceGetBoardId(self, handle: int) -> int:
        return self.machine.gpus[handle].board or 0

    def nvmlDeviceOnSameBoard(self, one: int, other: int) -> bool:
        boards = self.machine.gpus[one].board, self.machine.gpus[other].board
        return boards[0] is not None and boards[0] == boards[1]

    def nvmlDeviceGetGpuFabricInfo(self, handle: int, reference: Any) -> int:
        info = reference._obj  # what ctypes.byref was given
        info.state, info.cliqueId = self.machine.gpus[handle].fabric_state, 7
        info.clusterUuid[:] = bytes(range(16))
        return 0

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
        return int(self._port(handle, port) != DOWN)

    def nvmlDeviceGetNvLinkCapability(self, handle: int, port: int, capability: int) -> int:
        return int(self._port(handle, port) not in (DOWN, PROCESSOR))

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: int, port: int) -> int:
        return {SWITCH: 2, NAMELESS: 255, PROCESSOR: 1}.get(self._port(handle, port), 0)

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: int, port: int) -> Any:
        remote = self._port(handle, port)
        nobody = remote in (SWITCH, NAMELESS, PROCESSOR)
        return SimpleNamespace(busId="FFFFFFFF:FF:FF.0" if nobody else remote.upper())

    def nvmlDeviceGetFieldValues(self, handle: int, wanted: list[int | tuple[int, int]]) -> list[Any]:
        number, scope = wanted[0] if isinstance(wanted[0], tuple) else (wanted[0], 0)
        ports = self.machine.gpus[handle].nvlinks
        if number == 147:
            value = ports.count(SWITCH)
        elif number == 165 and scope < len(ports):
            value = int(ports[scope] != DOWN)
        else:
            return [SimpleNamespace(nvmlReturn=3, value=SimpleNamespace(uiVal=0))]
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=value))]

    def nvmlDeviceGetTopologyCommonAncestor(self, one: int, other: int) -> int:
        return self.machine.ancestor.get((min(one, other), max(one, other)), 50)

    def nvmlDeviceGetP2PStatus(self, one: int, other: int, index: int) -> int:
        if not isinstance(index, int):
            raise TypeError("the index is a number")
        if index == 2 and not self._joined_by_nvlinks(one, other):
            return 5
        return self.machine.p2p.get((one, other), 0)

    def _joined_by_nvlinks(self, one: int, other: int) -> bool:
        ports, others = self.machine.gpus[one].nvlinks, self.machine.gpus[other].nvlinks
        over_switch = any(kind in ports and kind in others for kind in (SWITCH, NAMELESS))
        return over_switch or self.machine.gpus[other].bus_id in ports or any(":c1:" in port for port in ports)
