"""A stand-in for the root of a Linux file system, as far as it tells of PCI devices, NUMA nodes and the driver."""

from __future__ import annotations

import struct
from pathlib import Path


def add_device(root: Path, path: str, **files: str) -> None:
    """Add the device at the end of `path` ("pci0000:3a/0000:3a:00.0/0000:3b:00.0") and link it under its bus id."""
    folder = root / "sys/devices" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    link = root / "sys/bus/pci/devices" / folder.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder)


def add_gpu(
    root: Path,
    path: str,
    numa_node: int = -1,
    driver: str = "nvidia",
    group: str = "",
    model: str = "Tesla V100",
    minor: int | None = None,
) -> None:
    """Add an NVIDIA GPU that a driver serves, with what NVIDIA's driver writes about it under /proc."""
    add_device(
        root,
        path,
        vendor="0x10de",
        **{"class": "0x030200"},
        numa_node=str(numa_node),
        max_link_speed="16.0 GT/s PCIe",
        current_link_speed="2.5 GT/s PCIe",
        max_link_width="16",
        current_link_width="8",
        local_cpulist="0-3",
    )
    device = root / "sys/devices" / path
    bus_id = device.name
    if group:
        kind = root / f"sys/kernel/iommu_groups/{bus_id}"
        kind.mkdir(parents=True)
        (kind / "type").write_text(group + "\n")
        (device / "iommu_group").symlink_to(kind)
    if driver:
        folder = root / "sys/bus/pci/drivers" / driver
        folder.mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(folder)
    if driver == "nvidia":
        about = root / f"proc/driver/nvidia/gpus/{bus_id}"
        about.mkdir(parents=True)
        text = f"Model: \t\t {model}\nIRQ:   \t\t 90\nGPU UUID: \t GPU-{bus_id}\n"
        (about / "information").write_text(text + (f"Device Minor: \t {minor}\n" if minor is not None else ""))
        (root / "dev").mkdir(exist_ok=True)
        (root / "dev/nvidiactl").touch()


def add_numa_nodes(root: Path, *cpus: str) -> None:
    """Add NUMA nodes 0, 1, ... with these cores."""
    for node, text in enumerate(cpus):
        folder = root / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(text + "\n")
    (root / "sys/devices/system/node/power").mkdir(exist_ok=True)


def configuration_space(acs_control: int | None) -> bytes:
    """A bridge's PCI configuration space with another extended capability before the ACS one, which may be missing."""
    space = bytearray(4096)
    struct.pack_into("<I", space, 0x100, 0x0001 | 1 << 16 | 0x148 << 20)
    if acs_control is not None:
        struct.pack_into("<IHH", space, 0x148, 0x000D | 1 << 16, 0, acs_control)
    return bytes(space)
