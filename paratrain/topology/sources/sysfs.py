"""The GPUs and PCIe paths that Linux shows in /sys and /proc: what is left where no tool of NVIDIA's answers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from paratrain.topology.hosts import numa_cpus
from paratrain.topology.machine import Gpu, Link, Machine
from paratrain.topology.number_ranges import format_ranges, parse_ranges
from paratrain.topology.sources.pci import PciTree, path_class

SOURCE = "Linux's PCI tree"
_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"  # VGA and 3D controllers
_GENERATION_OF_SPEED = {"2.5": 1, "5": 2, "5.0": 2, "8": 3, "8.0": 3, "16": 4, "16.0": 4, "32": 5, "32.0": 5, "64.0": 6}


def read_machine(root: Path = Path("/")) -> Machine:
    """The NVIDIA GPUs under `root` that the driver serves, in the order of the PCI bus; links are their PCIe paths.

    NVLinks are not shown there, so a pair may be joined better than it seems. GPUs of another driver (nouveau, or
    vfio-pci for a virtual machine), and those whose device files a container lacks, cannot be used and are left out.
    Without one that can be used the machine is empty; its reason is "" if Linux shows no NVIDIA GPU at all.
    """
    tree = PciTree(root)
    present = [
        bus_id
        for bus_id in tree.bus_ids()
        if tree.text(bus_id, "vendor") == _NVIDIA and tree.text(bus_id, "class").startswith(_DISPLAY_CLASS)
    ]
    usable = [bus_id for bus_id in present if _usable(tree, root, bus_id)]
    if not usable:
        return Machine(source=SOURCE, no_gpu_reason=_why_not(tree, present))
    one_node = len(numa_cpus(root)) == 1
    gpus = tuple(_gpu(tree, root, index, bus_id, one_node) for index, bus_id in enumerate(usable))
    return Machine(gpus, links_of(gpus), SOURCE, driver_version=_driver_version(root))


def links_of(gpus: tuple[Gpu, ...]) -> tuple[Link, ...]:
    """The PCIe paths between GPUs whose `pci_path` and `numa_node` are known; UNKNOWN where they are not."""
    return tuple(
        Link(
            min(a.index, b.index),
            max(a.index, b.index),
            path_class(a.pci_path, b.pci_path, (a.numa_node, b.numa_node)),
        )
        for place, a in enumerate(gpus)
        for b in gpus[place + 1 :]
    )


def with_places(gpus: tuple[Gpu, ...], root: Path = Path("/")) -> tuple[Gpu, ...]:
    """The same GPUs with what Linux says of their places, found by bus id; what is known already stays."""
    tree, one_node = PciTree(root), len(numa_cpus(root)) == 1
    return tuple(_placed(tree, gpu, one_node) for gpu in gpus)


def _gpu(tree: PciTree, root: Path, index: int, bus_id: str, one_node: bool) -> Gpu:
    said = _information(root, bus_id)
    gpu = Gpu(index, name=said.get("model", ""), bus_id=bus_id, uuid=said.get("gpu uuid", ""), nvml_index=index)
    return _placed(tree, gpu, one_node)


def _placed(tree: PciTree, gpu: Gpu, one_node: bool) -> Gpu:
    if not gpu.bus_id:
        return gpu
    bus_id = gpu.bus_id
    numa_node = tree.number(bus_id, "numa_node")
    cpus = parse_ranges(tree.text(bus_id, "local_cpulist"))
    return replace(
        gpu,
        numa_node=gpu.numa_node if gpu.numa_node is not None else 0 if numa_node is None and one_node else numa_node,
        cpu_affinity=gpu.cpu_affinity or format_ranges(cpus or ()),
        pci_path=gpu.pci_path or tree.path(bus_id),
        pcie_generation=gpu.pcie_generation or _generation(tree.text(bus_id, "max_link_speed")),
        pcie_generation_now=gpu.pcie_generation_now or _generation(tree.text(bus_id, "current_link_speed")),
        pcie_width=gpu.pcie_width or tree.number(bus_id, "max_link_width") or None,
        pcie_width_now=gpu.pcie_width_now or tree.number(bus_id, "current_link_width") or None,
    )


def _generation(speed: str) -> int | None:
    """The PCIe generation of a text such as "16.0 GT/s PCIe"."""
    return _GENERATION_OF_SPEED.get(speed.split(" ")[0])


def _driver_name(tree: PciTree, bus_id: str) -> str:
    try:
        return (tree.folder(bus_id) / "driver").resolve(strict=True).name
    except (OSError, RuntimeError):
        return ""


def _usable(tree: PciTree, root: Path, bus_id: str) -> bool:
    if _driver_name(tree, bus_id) != "nvidia" or not (root / "dev/nvidiactl").exists():
        return False
    minor = _information(root, bus_id).get("device minor", "")
    return not minor.isdecimal() or (root / f"dev/nvidia{minor}").exists()


def _why_not(tree: PciTree, present: list[str]) -> str:
    if not present:
        return ""
    bus_id = present[0]
    driver = _driver_name(tree, bus_id)
    if driver != "nvidia":
        served = f"is served by {driver}" if driver else "has no driver"
        return f"the NVIDIA GPU at {bus_id} {served}, not by NVIDIA's driver"
    return f"the NVIDIA GPU at {bus_id} is not given to this container (its device files are missing)"


def _information(root: Path, bus_id: str) -> dict[str, str]:
    """What the driver writes about a GPU under /proc, by its names in lower case."""
    path = root / "proc/driver/nvidia/gpus" / bus_id[4:] / "information"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _driver_version(root: Path) -> str:
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text)
    return match[1] if match else ""
