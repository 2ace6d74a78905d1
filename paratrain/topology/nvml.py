"""Ask the NVIDIA driver through NVML. The only module that imports pynvml (the package nvidia-ml-py)."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paratrain.topology.link_figures import nvlinks_per_gpu
from paratrain.topology.machine import Gpu, Link, LinkClass, LinkKind, Machine, MachineWarning, has_nvswitch
from paratrain.topology.visibility import visible_machine

# NVML's own numbers, which are the same in every version; the module's constants are not (one of them is a tuple).
_ANCESTOR_KINDS = {
    0: LinkKind.PIX,  # two GPUs of one board
    10: LinkKind.PIX,
    20: LinkKind.PXB,
    30: LinkKind.PHB,
    40: LinkKind.NODE,
    50: LinkKind.SYS,
}
_P2P_WORDS = {0: "OK", 1: "CNS", 2: "GNS", 3: "TNS", 4: "DR", 5: "NS", 6: "U"}
_P2P_READ, _P2P_WRITE, _P2P_NVLINK = 0, 1, 2
_REMOTE_IS_GPU, _REMOTE_IS_SWITCH = 0, 2
_CAPABILITY_P2P = 0
_FIELD_SWITCH_LINK_COUNT, _FIELD_LINK_STATE = 147, 165
_NODE_SCOPE = 0
_CLOCK_SM = 1
_NVLINK_MODELS = ("SXM", "HBM3", "H20", "B200")  # parts of the names of GPUs that are sold with NVLinks only
Ports = tuple[Counter[str], int]  # NVLinks that are up: those to GPUs by bus id, those to a switch
_AFFINITY_WORDS = 64  # 64-bit words: 4,096 cores or NUMA nodes


def read_machine(
    library: Any = None, environment: Mapping[str, str] | None = None, devices: Path = Path("/sys/bus/pci/devices")
) -> Machine:
    """The machine that the driver describes, with the GPUs that CUDA programs may see.

    Never raises for what a driver may lack: with no driver or no GPU the machine is empty and says why, and a question
    the driver does not support leaves its answer open. `library` stands in for the module pynvml, `environment` for
    ``os.environ``, `devices` for the folder in which Linux lists PCI devices.
    """
    environment = os.environ if environment is None else environment
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return Machine(source="NVML", no_gpu_reason="pynvml is not installed (pip install nvidia-ml-py)")
    try:
        library.nvmlInit()
    except Exception as error:
        return Machine(source="NVML", no_gpu_reason=_words(error))
    driver = _Driver(library, devices)
    try:
        machine = visible_machine(driver.machine(), environment)
    finally:
        driver.ask("nvmlShutdown")
    return machine.with_warnings(*_warnings(machine))


def _words(error: Exception) -> str:
    """NVML's reason as one sentence without its end."""
    text = _text(error).strip().rstrip(".") or type(error).__name__
    if "NVML Shared Library Not Found" in text or "LibraryNotFound" in type(error).__name__:
        return "the NVIDIA driver is not installed (NVML's library was not found)"
    return f"NVML says: {text}"


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)


class _Driver:
    """The questions to NVML, each of which may go unanswered (None)."""

    def __init__(self, library: Any, devices: Path) -> None:
        self.library = library
        self.devices = devices

    def ask(self, function: str, *arguments: Any) -> Any:
        """NVML's answer, or None if this driver, device, container or version of pynvml does not give one."""
        try:
            return getattr(self.library, function)(*arguments)
        except Exception:  # NVMLError, a function this pynvml lacks, an argument it refuses
            return None

    def number(self, function: str, *arguments: Any) -> int | None:
        answer = self.ask(function, *arguments)
        return answer if isinstance(answer, int) else None

    def machine(self) -> Machine:
        driver = _text(self.ask("nvmlSystemGetDriverVersion"))
        cuda = self.number("nvmlSystemGetCudaDriverVersion_v2") or self.number("nvmlSystemGetCudaDriverVersion")
        cuda_words = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else ""
        count = self.number("nvmlDeviceGetCount")
        handles = {index: self.ask("nvmlDeviceGetHandleByIndex", index) for index in range(count or 0)}
        lost = [index for index, handle in handles.items() if handle is None]
        handles = {index: handle for index, handle in handles.items() if handle is not None}
        if not handles:
            found = "does not say how many GPUs there are" if count is None else f"lists {count} GPUs"
            reason = f"the NVIDIA driver {found}" + (" and opens none of them" if lost else "")
            return Machine(source="NVML", no_gpu_reason=reason, driver_version=driver, cuda_version=cuda_words)
        gpus = {index: self.gpu(index, handle) for index, handle in handles.items()}
        ports = {index: self.ports(handle) for index, handle in handles.items()}
        links = tuple(
            self.link(gpus[a], gpus[b], handles[a], handles[b], ports[a], ports[b])
            for a in handles
            for b in handles
            if a < b
        )
        counts = {
            index: [link.link_class.nvlink_count for link in links if index in (link.a, link.b)] for index in gpus
        }
        nvswitch = any(switch for _, switch in ports.values()) or any(
            has_nvswitch([counts[index]], nvlinks_per_gpu(gpu.compute_capability) or 18) for index, gpu in gpus.items()
        )
        warnings = [
            MachineWarning("T14", f"NVML lists GPU{index} but cannot open it; it is left out") for index in lost
        ]
        return Machine(
            tuple(gpus.values()),
            links,
            "NVML",
            tuple(warnings),
            nvswitch,
            driver_version=driver,
            cuda_version=cuda_words,
        )

    def gpu(self, index: int, handle: Any) -> Gpu:
        pci = self.ask("nvmlDeviceGetPciInfo_v3", handle) or self.ask("nvmlDeviceGetPciInfo", handle)
        bus_id = normal_bus_id(_text(getattr(pci, "busId", None)))
        memory = self.ask("nvmlDeviceGetMemoryInfo", handle)
        capability = self.ask("nvmlDeviceGetCudaComputeCapability", handle)
        mig = self.ask("nvmlDeviceGetMigMode", handle)
        return Gpu(
            index,
            name=_text(self.ask("nvmlDeviceGetName", handle)),
            bus_id=bus_id,
            uuid=_text(self.ask("nvmlDeviceGetUUID", handle)),
            memory_bytes=getattr(memory, "total", None),
            memory_free_bytes=getattr(memory, "free", None),
            numa_node=self.numa_node(handle, bus_id),
            cpu_affinity=_ranges(_bits(self.ask("nvmlDeviceGetCpuAffinity", handle, _AFFINITY_WORDS))),
            compute_capability=f"{capability[0]}.{capability[1]}" if capability else "",
            pcie_generation=self.number("nvmlDeviceGetMaxPcieLinkGeneration", handle),
            pcie_width=self.number("nvmlDeviceGetMaxPcieLinkWidth", handle),
            core_count=self.number("nvmlDeviceGetNumGpuCores", handle),
            clock_mhz=self.number("nvmlDeviceGetMaxClockInfo", handle, _CLOCK_SM),
            mig=bool(mig[0]) if mig else None,
            nvml_index=index,
        )

    def numa_node(self, handle: Any, bus_id: str) -> int | None:
        """The lowest NUMA node near the GPU, from NVML or from Linux."""
        nodes = _bits(self.ask("nvmlDeviceGetMemoryAffinity", handle, _AFFINITY_WORDS, _NODE_SCOPE))
        if nodes:
            return nodes[0]
        try:
            node = int((self.devices / bus_id[-12:] / "numa_node").read_text())
        except (OSError, ValueError):
            return None
        return node if node >= 0 else None

    def ports(self, handle: Any) -> Ports:
        """The count of NVLinks that are up, by the bus id they lead to, and the count that ends on an NVSwitch."""
        most = getattr(self.library, "NVML_NVLINK_MAX_LINKS", 18)
        to_gpu: Counter[str] = Counter()
        to_switch = 0
        for port in range(most if isinstance(most, int) else 18):
            state = self.number("nvmlDeviceGetNvLinkState", handle, port)
            if state is None:
                state = self.field(handle, _FIELD_LINK_STATE, port)
            if state != 1 or self.number("nvmlDeviceGetNvLinkCapability", handle, port, _CAPABILITY_P2P) == 0:
                continue
            remote = self.number("nvmlDeviceGetNvLinkRemoteDeviceType", handle, port)
            if remote == _REMOTE_IS_SWITCH:
                to_switch += 1
            elif remote is None or remote == _REMOTE_IS_GPU:
                pci = self.ask("nvmlDeviceGetNvLinkRemotePciInfo", handle, port)
                to_gpu[normal_bus_id(_text(getattr(pci, "busId", None)))] += 1
        return to_gpu, self.field(handle, _FIELD_SWITCH_LINK_COUNT, 0) or to_switch

    def field(self, handle: Any, number: int, scope: int) -> int | None:
        """One of NVML's numbered values."""
        answer = self.ask("nvmlDeviceGetFieldValues", handle, [(number, scope)] if scope else [number])
        try:
            return int(answer[0].value.uiVal) if answer[0].nvmlReturn == 0 else None
        except (TypeError, AttributeError, IndexError, ValueError):
            return None

    def link(self, a: Gpu, b: Gpu, handle_a: Any, handle_b: Any, ports_a: Ports, ports_b: Ports) -> Link:
        """Direct NVLinks by the bus id at their other end, else NVLinks over a switch, else the PCIe path."""
        direct = max(ports_a[0][b.bus_id] if b.bus_id else 0, ports_b[0][a.bus_id] if a.bus_id else 0)
        over_switch = min(ports_a[1], ports_b[1])
        if over_switch and self.number("nvmlDeviceGetP2PStatus", handle_a, handle_b, _P2P_NVLINK) not in (0, None):
            over_switch = 0
        if direct or over_switch:
            link_class = LinkClass(LinkKind.NVLINK, direct or over_switch)
        else:
            ancestor = self.number("nvmlDeviceGetTopologyCommonAncestor", handle_a, handle_b)
            link_class = LinkClass(_ANCESTOR_KINDS.get(-1 if ancestor is None else ancestor, LinkKind.UNKNOWN))
        read, write = (self.p2p(handle_a, handle_b, index) for index in (_P2P_READ, _P2P_WRITE))
        return Link(a.index, b.index, link_class, read, write)

    def p2p(self, handle_a: Any, handle_b: Any, index: int) -> str:
        """The driver's word for copies in both directions: OK if both are, else the first reason against it."""
        pairs = ((handle_a, handle_b), (handle_b, handle_a))
        both = [self.number("nvmlDeviceGetP2PStatus", *pair, index) for pair in pairs]
        words = [_P2P_WORDS.get(status, "U") for status in both if status is not None]
        return next((word for word in words if word != "OK"), "OK" if words else "")


def _warnings(machine: Machine) -> list[MachineWarning]:
    """What is doubtful about a machine as NVML describes it."""
    gpus, links = machine.gpus, machine.links
    found: list[MachineWarning] = []
    unknown = [(link.a, link.b) for link in links if link.link_class.kind is LinkKind.UNKNOWN]
    if unknown:
        pairs = ", ".join(f"{a}-{b}" for a, b in unknown[:8]) + (" ..." if len(unknown) > 8 else "")
        message = f"the driver does not say how these pairs are linked: {pairs}; they are planned as SYS"
        found.append(MachineWarning("T14", message))
    for link in links:
        if link.link_class.kind in (LinkKind.PIX, LinkKind.PXB) and link.p2p_read not in ("", "OK", "U"):
            message = f"GPU{link.a} and GPU{link.b} are near ({link.link_class}) but the driver allows no direct copies"
            found.append(MachineWarning("T02", f"{message} ({link.p2p_read})", (link.a, link.b)))
    names = sorted({gpu.name for gpu in gpus if gpu.name})
    if len(names) > 1:
        message = f"the GPUs are of different models ({', '.join(names)}); the slowest sets the pace"
        found.append(MachineWarning("T08", message))
    built_for_nvlink = [gpu for gpu in gpus if any(word in gpu.name for word in _NVLINK_MODELS)]
    has_nvlinks = machine.nvswitch or any(link.link_class.kind is LinkKind.NVLINK for link in links)
    if len(built_for_nvlink) > 1 and not has_nvlinks:
        message = "these GPUs should have NVLinks, but none is up; is the fabric manager running?"
        found.append(MachineWarning("T07", message))
    sliced = [f"GPU{gpu.index}" for gpu in gpus if gpu.mig]
    if sliced:
        message = f"MIG is on for {', '.join(sliced)}: its instances cannot copy to each other directly"
        found.append(MachineWarning("T11", message))
    return found


def normal_bus_id(text: str) -> str:
    """A PCI bus id in one spelling: lower case, the domain with 8 digits ("00000000:3b:00.0"); "" if there is none."""
    parts = text.strip("\0 ").lower().split(":")
    if len(parts) == 2:
        parts = ["0", *parts]
    return ":".join([parts[0].zfill(8), *parts[1:]]) if len(parts) == 3 else ""


def _bits(words: Any) -> list[int]:
    """The numbers of the bits that are set in an array of 64-bit words."""
    try:
        numbers = [int(word) for word in words]
    except (TypeError, ValueError):
        return []
    return [64 * place + bit for place, word in enumerate(numbers) for bit in range(64) if word >> bit & 1]


def _ranges(numbers: list[int]) -> str:
    """Sorted numbers as "0-15,32-47"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
