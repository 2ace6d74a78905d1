"""How the GPUs of a node's ranks are linked, and the cores near each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from paratrain.comm.communicator import Communicator
from paratrain.data_parallel.ways import FindMachine
from paratrain.launch.rank_gpus import RankGpus
from paratrain.topology.link_figures import LinkFigure, figures
from paratrain.topology.machine import Gpu, Link, LinkClass, LinkKind, Machine
from paratrain.topology.number_ranges import parse_ranges
from paratrain.topology.sources.pci import PciTree, normal_bus_id

__all__ = ["cpus_near", "links_of_ranks", "machine_of_ranks"]


def cpus_near(gpu: Gpu, tree: PciTree | None = None) -> tuple[int, ...]:
    """The CPUs next to a GPU, as Linux tells; none where it does not."""
    text = (tree or PciTree()).text(normal_bus_id(gpu.bus_id), "local_cpulist")
    return tuple(parse_ranges(text) or ())


def links_of_ranks(
    communicator: Communicator, gpus: RankGpus, find: Callable[[], Machine], check: Callable[[Machine, int], Machine]
) -> FindMachine:
    """Return what finds the GPUs and links of this node's ranks (see :func:`machine_of_ranks`).

    ``find`` gives all GPUs of this node, whatever CUDA shows of them. Where all that are used are among them,
    ``check(machine, bytes)`` gives their machine with what is known of bad links.
    """
    own = gpus.of_node(communicator.node_of_rank[communicator.rank])

    def find_machine(byte_count: int) -> Machine:
        found = find()
        by_bus = {normal_bus_id(gpu.bus_id): gpu for gpu in found.gpus if gpu.bus_id}
        buses = list(dict.fromkeys(normal_bus_id(gpu.bus_id) for gpu in own))
        if not all(bus in by_bus for bus in buses):  # the driver cannot be asked
            return machine_of_ranks(Machine(source="CUDA", gpus=tuple(_distinct(own))), own)
        machine = found.select([by_bus[bus].index for bus in buses])
        if len(buses) > 1:
            machine = check(machine, byte_count)
        return machine_of_ranks(machine, own)

    return find_machine


def machine_of_ranks(machine: Machine, own: Sequence[Gpu]) -> Machine:
    """The machine whose GPU l is that of local rank l, ``own[l]``, found in ``machine`` by its bus id.

    Ranks that share a GPU have it each: between them lies the GPU's own memory.
    """
    by_bus = {normal_bus_id(gpu.bus_id): gpu for gpu in machine.gpus}
    found = [by_bus[normal_bus_id(gpu.bus_id)] for gpu in own]
    links, measured, vetoes = [], {}, {}
    # A copy within a GPU reads and writes its memory.
    within = LinkFigure(float(figures()["device"]["memory_gb_per_s"]) * 1e9 / 2, 4e-6)
    for b in range(len(found)):
        for a in range(b):
            low, high = sorted((found[a].index, found[b].index))
            if low == high:
                links.append(Link(a, b, LinkClass(LinkKind.PIX), "OK", "OK"))
                measured[a, b] = within
                continue
            links.append(replace(machine.link(low, high), a=a, b=b))
            if (low, high) in machine.measured:
                measured[a, b] = machine.measured[low, high]
            if (low, high) in machine.vetoes:
                vetoes[a, b] = machine.vetoes[low, high]
    gpus = tuple(replace(gpu, index=local) for local, gpu in enumerate(found))
    return replace(machine, gpus=gpus, links=tuple(links), measured=measured, vetoes=vetoes)


def _distinct(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Each GPU once, numbered anew: processes may each see their own as GPU 0."""
    once = {normal_bus_id(gpu.bus_id): gpu for gpu in gpus}
    return [replace(gpu, index=number) for number, gpu in enumerate(once.values())]
