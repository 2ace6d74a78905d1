"""What NVML says of the links between GPUs: NVLinks by the device at their other end, PCIe paths, direct copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from paratrain.topology.machine import Gpu, Link, LinkClass, LinkKind, MachineWarning
from paratrain.topology.sources.nvml_questions import Driver, as_text
from paratrain.topology.sources.pci import PciTree, normal_bus_id

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
_REMOTE_IS_GPU, _REMOTE_IS_SWITCH, _REMOTE_IS_UNKNOWN = 0, 2, 255
_CAPABILITY_P2P = 0
_FIELD_SWITCH_LINK_COUNT, _FIELD_LINK_STATE = 147, 165
_MOST_PORTS = 36
_NVSWITCH_CLASS = "0x0680"  # the PCI class of a bridge of no named kind, which NVSwitches are


@dataclass
class Ports:
    """The NVLinks of a GPU that are up: how many lead to each other GPU and to a switch.

    Those to a GPU that the driver does not name are `to_some_gpu`, those to something unknown are `somewhere`.
    """

    to_gpu: Counter[str] = field(default_factory=Counter)
    to_switch: int = 0
    to_some_gpu: int = 0
    somewhere: int = 0


def read_ports(driver: Driver, handle: Any, bus_ids: AbstractSet[str], tree: PciTree) -> Ports:
    """The NVLinks of one GPU. `bus_ids` are those of all GPUs that the driver shows.

    An NVSwitch is told by the driver's word for the device at the other end, by its count of links that end on
    switches, or by the class of that device in Linux's PCI tree. Links to a processor (POWER9) count for nothing here,
    and neither do those to GPUs that the driver does not show.
    """
    ports = Ports()
    most = getattr(driver.library, "NVML_NVLINK_MAX_LINKS", None)
    for port in range(min(most, 4 * _MOST_PORTS) if isinstance(most, int) else _MOST_PORTS):
        state = driver.number("nvmlDeviceGetNvLinkState", handle, port)
        if state is None:
            state = driver.field(handle, _FIELD_LINK_STATE, port)
        if state != 1 or driver.number("nvmlDeviceGetNvLinkCapability", handle, port, _CAPABILITY_P2P) == 0:
            continue
        remote = driver.number("nvmlDeviceGetNvLinkRemoteDeviceType", handle, port)
        if remote == _REMOTE_IS_SWITCH:
            ports.to_switch += 1
        elif remote in (None, _REMOTE_IS_GPU, _REMOTE_IS_UNKNOWN):
            pci = driver.ask("nvmlDeviceGetNvLinkRemotePciInfo", handle, port)
            bus_id = normal_bus_id(as_text(getattr(pci, "busId", None)))
            if bus_id in bus_ids:
                ports.to_gpu[bus_id] += 1
            elif not bus_id and remote == _REMOTE_IS_GPU:
                ports.to_some_gpu += 1
            elif not bus_id:
                ports.somewhere += 1
            elif tree.text(bus_id, "class").startswith(_NVSWITCH_CLASS):
                ports.to_switch += 1
    counted = driver.field(handle, _FIELD_SWITCH_LINK_COUNT)
    if counted:
        ports.to_switch, ports.to_some_gpu, ports.somewhere = counted, 0, 0
    return ports


def read_link(driver: Driver, a: Gpu, b: Gpu, handles: tuple[Any, Any], ports: tuple[Ports, Ports]) -> Link:
    """The link of a pair: direct NVLinks, else NVLinks over a switch, else the PCIe path."""
    said = [count for count in (ports[0].to_gpu[b.bus_id], ports[1].to_gpu[a.bus_id]) if count]
    count = min(said, default=0)  # both ends should say the same; where they do not, the lower promises less
    if not count:
        count = _nameless(driver, handles, ports)
    if count:
        link_class = LinkClass(LinkKind.NVLINK, count)
    else:
        ancestor = driver.number("nvmlDeviceGetTopologyCommonAncestor", *handles)
        link_class = LinkClass(_ANCESTOR_KINDS.get(-1 if ancestor is None else ancestor, LinkKind.UNKNOWN))
        if driver.ask("nvmlDeviceOnSameBoard", *handles) in (1, True):
            link_class = LinkClass(LinkKind.PIX)
    read, write = (_p2p(driver, handles, index) for index in (_P2P_READ, _P2P_WRITE))
    return Link(a.index, b.index, link_class, read, write)


def _nameless(driver: Driver, handles: tuple[Any, Any], ports: tuple[Ports, Ports]) -> int:
    """The NVLinks that join a pair without naming each other, as far as the driver allows copies over them.

    A driver that does not say where links end must confirm that they join this pair. Direct ones count as one then,
    since nobody says how many of them lead to this peer; others count as if they ended on a switch.
    """
    over_switch = min(ports[0].to_switch, ports[1].to_switch)
    somewhere = min(port.to_switch + port.somewhere for port in ports) or min(1, *(p.to_some_gpu for p in ports))
    status = driver.number("nvmlDeviceGetP2PStatus", *handles, _P2P_NVLINK) if somewhere else None
    if over_switch and status in (0, None):
        return over_switch
    return somewhere if status == 0 else 0


def doubtful_ports(links: Sequence[Link], ports: Mapping[int, Ports]) -> list[MachineWarning]:
    """T14 where NVLinks were counted whose other end the driver does not name."""
    guessed = sorted(
        {
            index
            for link in links
            for index in (link.a, link.b)
            if link.link_class.kind is LinkKind.NVLINK and ports[index].somewhere + ports[index].to_some_gpu
        }
    )
    if not guessed:
        return []
    names = ", ".join(f"GPU{index}" for index in guessed)
    message = f"the driver does not say where the NVLinks of {names} end; how many join a pair is a guess"
    return [MachineWarning("T14", message)]


def _p2p(driver: Driver, handles: tuple[Any, Any], index: int) -> str:
    """The driver's word for copies in both directions: OK if both are, else the first reason against it."""
    both = [driver.number("nvmlDeviceGetP2PStatus", *pair, index) for pair in (handles, handles[::-1])]
    words = [_P2P_WORDS.get(status, "U") for status in both if status is not None]
    return next((word for word in words if word != "OK"), "OK" if words else "")
