"""What transfers share: GPU ports, PCIe slots, the uplinks of PCIe islands, the links between sockets, memory.

`nvidia-smi topo -m` gives a class for each pair, not the wiring. From the classes follows enough of it:

- Direct NVLinks are a wire of the pair's own, in each direction. NVLinks that end on a switch are a port of the GPU,
  one out and one in, that all its peers share.
- GPUs that PIX and PXB join form an island, below one uplink. What leaves the island loads the uplink.
- GPUs of one NUMA node, or joined by PIX, PXB, PHB or NODE, sit at one socket. SYS leaves one socket and enters another.
- What is staged goes up to the host's memory and down again, so that it loads slots and uplinks also inside an island.

Every segment is full duplex: out and in are two. It carries what the fastest single transfer over it can do; measured
figures therefore raise it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from paratrain.topology.link_figures import LinkFigure, figure_of_pair, figures
from paratrain.topology.machine import Gpu, LinkKind, Machine

NEAR = (LinkKind.PIX, LinkKind.PXB)
OVER_HOST = (LinkKind.PHB, LinkKind.NODE, LinkKind.SYS, LinkKind.UNKNOWN)
SAME_SOCKET = (LinkKind.PIX, LinkKind.PXB, LinkKind.PHB, LinkKind.NODE)
Segment = str


class Fabric(ABC):
    """Numbered members 0 .. size-1, what a transfer between two of them can do alone, and what it shares with others."""

    size: int

    @abstractmethod
    def figure(self, one: int, other: int) -> LinkFigure:
        """What the link between two members can do when nothing else moves; the same in both directions."""

    @abstractmethod
    def path(self, source: int, target: int) -> tuple[Segment, ...]:
        """The segments that a transfer loads, from the source to the target."""

    @abstractmethod
    def common(self, source: int, target: int) -> tuple[Segment, ...]:
        """Those of `path` that belong to no member and no pair alone: uplinks, socket links, memory, network cards."""

    @abstractmethod
    def capacity(self, segment: Segment) -> float:
        """The bytes a second that a segment carries."""

    @abstractmethod
    def crosses_sockets(self, one: int, other: int) -> bool:
        """Whether the way between two members leaves a socket, or the node: SYS, or not known to be at one socket."""

    def seconds(self, one: int, other: int, byte_count: float) -> float:
        """The seconds for moving these bytes over an idle link."""
        figure = self.figure(one, other)
        return figure.latency_s + byte_count / figure.bytes_per_s


class MachineFabric(Fabric):
    """The fabric of one node; its members are the places in `machine.members`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        members = machine.members
        self.size = len(members)
        self._figures: list[list[LinkFigure]] = [[LinkFigure(float("inf"), 0.0)] * self.size for _ in members]
        self._kinds = [[LinkKind.SELF] * self.size for _ in members]
        for one in range(self.size):
            for other in range(one):
                a, b = members[one], members[other]
                figure, kind = figure_of_pair(machine, a, b), machine.link_class(a.index, b.index).kind
                self._figures[one][other] = self._figures[other][one] = figure
                self._kinds[one][other] = self._kinds[other][one] = kind
        self._paths: dict[tuple[int, int], tuple[Segment, ...]] = {}
        self._common: dict[tuple[int, int], tuple[Segment, ...]] = {}

    def figure(self, one: int, other: int) -> LinkFigure:
        """See `Fabric`."""
        return self._figures[one][other]

    def reordered(self, places: Sequence[int]) -> MachineFabric:
        """The fabric of the same machine with its members in another order."""
        if list(places) == list(range(self.size)):
            return self
        return MachineFabric(self.machine.select([self.machine.indices[place] for place in places]))

    def crosses_sockets(self, one: int, other: int) -> bool:
        """See `Fabric`."""
        kind = self._kinds[one][other]
        return kind is LinkKind.SYS or (kind is LinkKind.UNKNOWN and self.sockets[one] != self.sockets[other])

    @cached_property
    def islands(self) -> list[int]:
        """For each place the lowest place of its island: the GPUs that PIX and PXB links join."""
        return self._groups(lambda one, other: self._kinds[one][other] in NEAR)

    @cached_property
    def _island_sizes(self) -> Counter[int]:
        return Counter(self.islands)

    @cached_property
    def sockets(self) -> list[int]:
        """For each place the lowest place of its socket: the same NUMA node, or joined by PIX, PXB, PHB or NODE."""
        members = self.machine.members

        def same(one: int, other: int) -> bool:
            node = members[one].numa_node
            return self._kinds[one][other] in SAME_SOCKET or (node is not None and node == members[other].numa_node)

        return self._groups(same)

    def _groups(self, same: Callable[[int, int], bool]) -> list[int]:
        group = list(range(self.size))
        for one in range(self.size):
            for other in range(one):
                if group[one] != group[other] and same(one, other):
                    low, high = sorted((group[one], group[other]))
                    group = [low if number == high else number for number in group]
        return group

    def path(self, source: int, target: int) -> tuple[Segment, ...]:
        """See `Fabric`."""
        if (source, target) not in self._paths:
            self._paths[source, target] = self._own(source, target) + self.common(source, target)
        return self._paths[source, target]

    def _own(self, source: int, target: int) -> tuple[Segment, ...]:
        a, b = self.machine.members[source].index, self.machine.members[target].index
        if not isinstance(self.machine.members[source], Gpu):
            return (f"rank {a} sends", f"rank {b} receives")
        if self._over_pcie(source, target):
            return (f"slot of GPU{a} out", f"slot of GPU{b} in")
        if self.machine.nvswitch:
            return (f"port of GPU{a} out", f"port of GPU{b} in")
        return (f"wire GPU{a} to GPU{b}",)

    def _over_pcie(self, source: int, target: int) -> bool:
        return self._kinds[source][target] is not LinkKind.NVLINK or self._figures[source][target].staged

    def common(self, source: int, target: int) -> tuple[Segment, ...]:
        """See `Fabric`."""
        if (source, target) not in self._common:
            self._common[source, target] = tuple(self._shared_by_many(source, target))
        return self._common[source, target]

    def _shared_by_many(self, source: int, target: int) -> list[Segment]:
        members = self.machine.members
        if not isinstance(members[source], Gpu):
            numa_nodes = dict.fromkeys((members[source].numa_node, members[target].numa_node))
            return [f"memory of NUMA node {'?' if node is None else node}" for node in numa_nodes]
        kind = self._kinds[source][target]
        if not self._figures[source][target].staged and kind not in OVER_HOST:
            return []
        segments = []
        for place, way in ((source, "out"), (target, "in")):
            if self._island_sizes[self.islands[place]] > 1:
                segments.append(f"uplink of GPU{members[self.islands[place]].index}'s island {way}")
        if self.sockets[source] != self.sockets[target]:
            for place, way in ((source, "out"), (target, "in")):
                segments.append(f"socket of GPU{members[self.sockets[place]].index} {way}")
        return segments

    @cached_property
    def _capacities(self) -> dict[Segment, float]:
        most: dict[Segment, float] = {}
        for source in range(self.size):
            for target in range(self.size):
                if source != target:
                    rate = self._figures[source][target].bytes_per_s
                    for segment in self.path(source, target):
                        most[segment] = max(most.get(segment, 0.0), rate)
        memory = float(figures()["shared"]["memory_gb_per_s"]) * 1e9
        return {name: max(rate, memory) if name.startswith("memory") else rate for name, rate in most.items()}

    def capacity(self, segment: Segment) -> float:
        """See `Fabric`."""
        return self._capacities[segment]
