"""How the data of an edge travels, and the sentence that says why."""

from __future__ import annotations

from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.link_figures import staging_reason
from paratrain.topology.machine import Gpu, LinkKind, Machine

IPC = "ipc"  # a copy from GPU to GPU, the other's memory opened through CUDA IPC
HOST = "host"  # through pinned memory of the host
SHARED_MEMORY = "shared"  # shared memory of two CPU ranks of one node
MPI = "mpi"  # messages
ACROSS_NODES = "the two are on different nodes, so MPI messages carry the data"
BESIDE_NODES = "both are CPU ranks of one node, but a tree over several nodes is made of MPI messages throughout"

_WAYS = {
    LinkKind.PIX: "at most one PCIe bridge lies between the two",
    LinkKind.PXB: "only PCIe bridges lie between the two",
    LinkKind.PHB: "the way leads through one PCIe host bridge",
    LinkKind.NODE: "the way leads through the host bridges of one NUMA node",
    LinkKind.SYS: "the way leads from one socket to another",
}


def transport_of(fabric: MachineFabric, one: int, other: int) -> tuple[str, str]:
    """The transport between two members of a node ("ipc", "host" or "shared") and the reason as a sentence."""
    machine = fabric.machine
    a, b = machine.members[one], machine.members[other]
    if not (isinstance(a, Gpu) and isinstance(b, Gpu)):
        return SHARED_MEMORY, "both are CPU ranks of one node, so that its memory carries the data"
    reason = staging_reason(machine, a, b)
    if reason:
        return HOST, f"through the host's memory: {reason}"
    if fabric.figure(one, other).staged:
        return HOST, "through the host's memory, which was measured to be faster than a direct copy"
    return IPC, f"direct copy: {_way(machine, a, b)}{_assumed(machine, a, b)}"


def _way(machine: Machine, a: Gpu, b: Gpu) -> str:
    link_class = machine.link_class(a.index, b.index)
    if link_class.kind is LinkKind.NVLINK:
        count = link_class.nvlink_count
        links = f"{count} NVLink{'' if count == 1 else 's'}"
        return f"{links} through an NVSwitch" if machine.nvswitch else f"{links} of their own join the two"
    return _WAYS[link_class.kind]


def _assumed(machine: Machine, a: Gpu, b: Gpu) -> str:
    link = machine.link(a.index, b.index)
    if (link.a, link.b) in machine.measured or {link.p2p_read, link.p2p_write} == {"OK"}:
        return ""
    return "; nobody asked the driver whether it allows P2P"
