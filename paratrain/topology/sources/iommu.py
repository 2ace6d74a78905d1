"""Hints that direct copies over PCIe may go astray: an IOMMU that translates, bridges that redirect (ACS)."""

from __future__ import annotations

import struct
from pathlib import Path

from paratrain.topology.machine import LinkKind, Machine, MachineWarning
from paratrain.topology.sources.pci import PciTree

_TRANSLATING = ("DMA", "DMA-FQ")  # the types of a Linux IOMMU group; "identity" passes addresses through
_FIRST_EXTENDED_CAPABILITY, _ACS_CAPABILITY, _ACS_CONTROL_OFFSET = 0x100, 0x000D, 6
_ACS_REDIRECTS = 0b1100  # request redirect and completion redirect
_MOST_CAPABILITIES = 64


def iommu_warnings(machine: Machine, root: Path = Path("/")) -> list[MachineWarning]:
    """T06 if this machine, whose file system begins at `root`, may spoil the direct PCIe copies of some pair.

    Only reads. Says nothing for machines whose pairs are all joined by NVLinks, or which allow no direct copies.
    """
    over_pcie = [
        (link.a, link.b)
        for link in machine.links
        if link.link_class.kind is not LinkKind.NVLINK
        and all(word in ("", "OK", "U") for word in (link.p2p_read, link.p2p_write))
    ]
    if not over_pcie:
        return []
    tree = PciTree(root)
    concerned = [gpu for gpu in machine.gpus if gpu.bus_id and any(gpu.index in pair for pair in over_pcie)]
    warnings: list[MachineWarning] = []
    translates = _translation(tree, root, [gpu.bus_id for gpu in concerned])
    if translates:
        message = (
            f"the IOMMU translates the GPUs' addresses ({translates}): direct copies over PCIe may arrive wrong or "
            "never; `paratrain topology --check` tests them"
        )
        if _is_virtual(root):
            message += "; this is a virtual machine, whose host needs that"
        warnings.append(MachineWarning("T06", message))
    bridges = sorted({bridge for gpu in concerned for bridge in gpu.pci_path[1:-1] if acs_redirects(tree, bridge)})
    if bridges:
        shown = ", ".join(bridges[:4]) + (" ..." if len(bridges) > 4 else "")
        message = (
            f"the PCIe bridges {shown} send copies between GPUs up to the processor (ACS): they are slow, or do not "
            "arrive; `paratrain topology --check` tests them"
        )
        warnings.append(MachineWarning("T06", message))
    return warnings


def _translation(tree: PciTree, root: Path, bus_ids: list[str]) -> str:
    """The evidence that addresses are translated; "" if there is none."""
    types = {tree.text(bus_id, "iommu_group/type") for bus_id in bus_ids} - {""}
    if types:
        return ", ".join(f"iommu_group/type: {kind}" for kind in sorted(types) if kind in _TRANSLATING)
    try:
        units = sorted(entry.name for entry in (root / "sys/class/iommu").iterdir())
        words = (root / "proc/cmdline").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return ""
    if not units or "iommu=pt" in words or "iommu.passthrough=1" in words:
        return ""
    switched_on = [word for word in words if word.split("=")[0] in ("intel_iommu", "amd_iommu") and "on" in word]
    return switched_on[0] if switched_on else ""


def acs_redirects(tree: PciTree, bridge: str) -> bool | None:
    """Whether a bridge redirects copies between the devices below it; None if that cannot be read (root alone may).

    Reads the ACS control register, an extended capability of the bridge's PCI configuration space.
    """
    try:
        space = (tree.folder(bridge) / "config").read_bytes()
    except OSError:
        return None
    if len(space) <= _FIRST_EXTENDED_CAPABILITY + 4:
        return None
    at = _FIRST_EXTENDED_CAPABILITY
    for _ in range(_MOST_CAPABILITIES):
        if at < _FIRST_EXTENDED_CAPABILITY or at + 8 > len(space):
            return False
        (head,) = struct.unpack_from("<I", space, at)
        if head & 0xFFFF == _ACS_CAPABILITY:
            (control,) = struct.unpack_from("<H", space, at + _ACS_CONTROL_OFFSET)
            return bool(control & _ACS_REDIRECTS)
        at = head >> 20
    return False


def _is_virtual(root: Path) -> bool:
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return " hypervisor" in text
