"""What NVML says of one GPU."""

from __future__ import annotations

import ctypes
from typing import Any

from paratrain.topology.machine import Gpu
from paratrain.topology.number_ranges import format_ranges
from paratrain.topology.sources.nvml_questions import Driver, as_text, set_bits
from paratrain.topology.sources.pci import PciTree, normal_bus_id

_NODE_SCOPE = 0
_CLOCK_SM = 1
_AFFINITY_WORDS = 64  # 64-bit words: 4,096 cores or NUMA nodes
_FABRIC_STATES = {1: "not started", 2: "in progress", 3: "completed"}  # 0 is: this GPU has no fabric
_UNKNOWN_PERFORMANCE_STATE = 32


def read_gpu(driver: Driver, index: int, handle: Any, tree: PciTree) -> Gpu:
    """All that the driver says of the GPU with this number and handle; what it does not say stays open."""
    bus_id = read_bus_id(driver, handle)
    memory = driver.ask("nvmlDeviceGetMemoryInfo", handle)
    fabric, clique = _fabric(driver, handle)
    state = driver.number("nvmlDeviceGetPerformanceState", handle)
    display = driver.number("nvmlDeviceGetDisplayActive", handle)
    return Gpu(
        index,
        name=driver.text("nvmlDeviceGetName", handle),
        bus_id=bus_id,
        uuid=driver.text("nvmlDeviceGetUUID", handle),
        memory_bytes=_byte_count(memory, "total"),
        memory_free_bytes=_byte_count(memory, "free"),
        numa_node=_numa_node(driver, handle, bus_id, tree),
        cpu_affinity=format_ranges(set_bits(driver.ask("nvmlDeviceGetCpuAffinity", handle, _AFFINITY_WORDS))),
        compute_capability=_compute_capability(driver, handle),
        pcie_generation=driver.number("nvmlDeviceGetMaxPcieLinkGeneration", handle),
        pcie_width=driver.number("nvmlDeviceGetMaxPcieLinkWidth", handle),
        core_count=driver.number("nvmlDeviceGetNumGpuCores", handle),
        clock_mhz=driver.number("nvmlDeviceGetMaxClockInfo", handle, _CLOCK_SM),
        mig=_mig(driver, handle),
        nvml_index=index,
        pcie_generation_now=driver.number("nvmlDeviceGetCurrPcieLinkGeneration", handle),
        pcie_width_now=driver.number("nvmlDeviceGetCurrPcieLinkWidth", handle),
        performance_state=None if state == _UNKNOWN_PERFORMANCE_STATE else state,
        pci_path=tree.path(bus_id) if bus_id else (),
        board=_board(driver, handle),
        memory_numa_node=driver.number("nvmlDeviceGetNumaNodeId", handle),
        display_active=None if display is None else bool(display),
        fabric=fabric,
        fabric_clique=clique,
    )


def read_bus_id(driver: Driver, handle: Any) -> str:
    """The GPU's PCI bus id in one spelling, from whichever of NVML's functions and fields gives it."""
    for function in ("nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo"):
        pci = driver.ask(function, handle)
        for field in ("busId", "busIdLegacy"):
            bus_id = normal_bus_id(as_text(getattr(pci, field, None)))
            if bus_id:
                return bus_id
    return ""


def _compute_capability(driver: Driver, handle: Any) -> str:
    answer = driver.ask("nvmlDeviceGetCudaComputeCapability", handle)
    try:
        major, minor = answer
    except (TypeError, ValueError):
        return ""
    return f"{major}.{minor}"


def _mig(driver: Driver, handle: Any) -> bool | None:
    """Whether the GPU is cut into instances now; the second number of the answer is what it will be."""
    answer = driver.ask("nvmlDeviceGetMigMode", handle)
    try:
        return bool(answer[0])
    except (TypeError, IndexError, KeyError):
        return None


def _byte_count(memory: Any, field: str) -> int | None:
    value = getattr(memory, field, None)
    return value if isinstance(value, int) else None


def _numa_node(driver: Driver, handle: Any, bus_id: str, tree: PciTree) -> int | None:
    """The lowest NUMA node near the GPU, from NVML or from Linux."""
    nodes = set_bits(driver.ask("nvmlDeviceGetMemoryAffinity", handle, _AFFINITY_WORDS, _NODE_SCOPE))
    if nodes:
        return nodes[0]
    return tree.number(bus_id, "numa_node") if bus_id else None


def _board(driver: Driver, handle: Any) -> str:
    """A name for the board if it carries several GPUs (K80), else ""."""
    if driver.number("nvmlDeviceGetMultiGpuBoard", handle) != 1:
        return ""
    board = driver.number("nvmlDeviceGetBoardId", handle)
    return "" if board is None else f"{board:#x}"


def _fabric(driver: Driver, handle: Any) -> tuple[str, str]:
    """The state of the NVSwitch fabric, and the GPU's cluster and clique in it; "" where there is none."""
    kind = getattr(driver.library, "c_nvmlGpuFabricInfo_t", None)
    if kind is None:
        return "", ""
    try:
        info = kind()
        reference = ctypes.byref(info)
    except TypeError:
        return "", ""
    if driver.ask("nvmlDeviceGetGpuFabricInfo", handle, reference) is None:
        return "", ""
    state = _FABRIC_STATES.get(info.state, "")
    cluster = bytes(info.clusterUuid).hex()
    named = state == "completed" and cluster.strip("0")
    return state, f"{cluster}.{info.cliqueId}" if named else ""
