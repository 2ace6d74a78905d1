"""PCI: bus ids in one spelling, and the paths that Linux shows from the processor to each device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from paratrain.topology.machine import UNKNOWN, LinkClass, LinkKind

_BUS_ID = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE)
_SAME_SWITCH = 2  # steps down from a switch's upstream port to a device behind it: the downstream port, the device


def normal_bus_id(text: str) -> str:
    """A PCI bus id in one spelling: lower case, the domain with 8 digits ("00000000:3b:00.0").

    "" if it is none, or if it is one of those with which drivers say that they name no device (FFFFFFFF:FF:FF.0).
    """
    match = _BUS_ID.fullmatch(text.strip("\0 \t\r\n"))
    if match is None:
        return ""
    domain, bus, device, function = (match[1] or "0").lower(), match[2].lower(), match[3].lower(), match[4]
    if set(bus + device) == {"f"}:
        return ""
    return f"{domain.zfill(8)}:{bus.zfill(2)}:{device.zfill(2)}.{function}"


class PciTree:
    """What Linux shows of the PCI devices under `root` (the root of the file system). Nothing here raises."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.devices = root / "sys/bus/pci/devices"

    def bus_ids(self) -> list[str]:
        """The bus ids of all devices, sorted; [] where Linux shows none."""
        try:
            names = [entry.name for entry in self.devices.iterdir()]
        except OSError:
            return []
        return sorted(bus_id for bus_id in map(normal_bus_id, names) if bus_id)

    def text(self, bus_id: str, name: str) -> str:
        """The content of one of the device's files, such as `class` or `numa_node`; "" where it cannot be read."""
        try:
            return (self.folder(bus_id) / name).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return ""

    def number(self, bus_id: str, name: str) -> int | None:
        """The content of a file as a number that is not negative: Linux writes -1 for a NUMA node it does not know."""
        text = self.text(bus_id, name)
        return int(text) if text.isascii() and text.isdecimal() else None

    def folder(self, bus_id: str) -> Path:
        """The device's folder. Linux writes the domain with 4 digits unless it needs more."""
        domain, _, rest = bus_id.partition(":")
        return self.devices / f"{domain.lstrip('0').zfill(4)}:{rest}"

    def path(self, bus_id: str) -> tuple[str, ...]:
        """The host bridge ("pci0000:3a"), the bridges below it and the device itself; () where Linux does not show it."""
        try:
            parts = self.folder(bus_id).resolve(strict=True).parts
        except (OSError, RuntimeError):
            return ()
        first = next((place for place, part in enumerate(parts) if re.match(r"pci[0-9a-f]{4,8}:", part)), None)
        if first is None:
            return ()
        return (parts[first], *(normal_bus_id(part) or part for part in parts[first + 1 :]))


def path_class(one: Sequence[str], other: Sequence[str], numa_nodes: tuple[int | None, int | None]) -> LinkClass:
    """The class of the PCIe path between two devices, from their paths in Linux's PCI tree and their NUMA nodes.

    PIX behind one switch, PXB through several, PHB below one host bridge, NODE between the host bridges of one NUMA
    node, SYS between NUMA nodes; UNKNOWN if a path or, for two host bridges, a NUMA node is not known.
    """
    if not one or not other:
        return UNKNOWN
    if one[0] != other[0]:
        if None in numa_nodes:
            return UNKNOWN
        return LinkClass(LinkKind.NODE if numa_nodes[0] == numa_nodes[1] else LinkKind.SYS)
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    if shared == 1:
        return LinkClass(LinkKind.PHB)
    return LinkClass(LinkKind.PIX if max(len(one), len(other)) - shared <= _SAME_SWITCH else LinkKind.PXB)
