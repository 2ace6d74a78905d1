"""Several nodes: their members, the network between them, and the plan over all.

Inside a node the tree is planned once for every kind of node there is; over the nodes a tree joins their roots. So a
thousand GPUs are planned nearly as fast as one node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from paratrain.errors import TopologyError
from paratrain.topology.costs.contention import Fabric, MachineFabric, Segment
from paratrain.topology.link_figures import LinkFigure, network_figure
from paratrain.topology.machine import NETWORK, LinkClass, Machine


@dataclass(frozen=True)
class Cluster:
    """Nodes with at least one member each. Members are numbered node by node, in the order of their machines.

    A network card of each end carries what goes between two nodes; a node's cards are dealt to its members in their
    order. What a transfer loads inside the two nodes, on its way to the cards, is left out of account. TopologyError if
    there is no node or a node without members.
    """

    nodes: tuple[Machine, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise TopologyError("cluster: expected at least one node, found none")
        for number, node in enumerate(self.nodes):
            if not node.members:
                raise TopologyError(
                    f"cluster: node {number} ({node.source}) has neither GPUs nor CPU ranks; leave it out or give it ranks"
                )

    @classmethod
    def of(cls, machine: Machine, node_count: int) -> Cluster:
        """So many nodes, all alike. TopologyError if there are none."""
        return cls((machine,) * max(node_count, 0))

    @cached_property
    def members(self) -> tuple[tuple[int, int], ...]:
        """For each member its node and its place in that node's `members`."""
        return tuple((number, place) for number, node in enumerate(self.nodes) for place in range(len(node.members)))

    @cached_property
    def first(self) -> tuple[int, ...]:
        """For each node the number of its first member."""
        counts = [len(node.members) for node in self.nodes]
        return tuple(sum(counts[:number]) for number in range(len(counts)))

    @property
    def size(self) -> int:
        """The count of members."""
        return len(self.members)

    def name(self, member: int) -> str:
        """``node 3 GPU5``, or ``node 3 rank 5`` for a CPU rank."""
        number, place = self.members[member]
        node = self.nodes[number]
        return f"node {number} {'GPU' if node.gpus else 'rank '}{node.members[place].index}"

    def link_class(self, one: int, other: int) -> LinkClass:
        """The class of the link between two members."""
        (a_node, a), (b_node, b) = self.members[one], self.members[other]
        if a_node != b_node:
            return NETWORK
        node = self.nodes[a_node]
        return node.link_class(node.members[a].index, node.members[b].index)


class ClusterFabric(Fabric):
    """The fabric of all members of a cluster; what the links of a node can do is worked out once for nodes alike."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.size = cluster.size
        kinds: dict[Machine, MachineFabric] = {}
        self.node_fabrics: list[MachineFabric] = []
        for node in cluster.nodes:
            known = self.node_fabrics[-1] if self.node_fabrics and self.node_fabrics[-1].machine is node else None
            self.node_fabrics.append(known or kinds.setdefault(node, MachineFabric(node)))
        self._cards = [network_figure(node) for node in cluster.nodes]
        self._between: dict[tuple[LinkFigure, LinkFigure], LinkFigure] = {}
        self._capacities: dict[Segment, float] = {}
        self._paths: dict[tuple[int, int, bool], tuple[Segment, ...]] = {}

    def figure(self, one: int, other: int) -> LinkFigure:
        """See `Fabric`; between nodes the slower of the two cards decides."""
        (a_node, a), (b_node, b) = self.cluster.members[one], self.cluster.members[other]
        if a_node == b_node:
            return self.node_fabrics[a_node].figure(a, b)
        cards = self._cards[a_node], self._cards[b_node]
        if cards not in self._between:
            origins = {card.origin for card in cards}
            self._between[cards] = LinkFigure(
                min(card.bytes_per_s for card in cards),
                max(card.latency_s for card in cards),
                origin=origins.pop() if len(origins) == 1 else "default",
            )
        return self._between[cards]

    def path(self, source: int, target: int) -> tuple[Segment, ...]:
        """See `Fabric`."""
        return self._named(source, target, common=False)

    def common(self, source: int, target: int) -> tuple[Segment, ...]:
        """See `Fabric`."""
        return self._named(source, target, common=True)

    def _named(self, source: int, target: int, common: bool) -> tuple[Segment, ...]:
        key = (source, target, common)
        if key not in self._paths:
            (a_node, a), (b_node, b) = self.cluster.members[source], self.cluster.members[target]
            if a_node == b_node:
                fabric = self.node_fabrics[a_node]
                inside = fabric.common(a, b) if common else fabric.path(a, b)
                loaded = {f"node {a_node}: {name}": fabric.capacity(name) for name in inside}
            else:
                loaded = {
                    f"{self._card(number, place)} {way}": self._cards[number].bytes_per_s
                    for number, place, way in ((a_node, a, "out"), (b_node, b, "in"))
                }
            self._capacities.update(loaded)
            self._paths[key] = tuple(loaded)
        return self._paths[key]

    def _card(self, number: int, place: int) -> str:
        node = self.cluster.nodes[number]
        return f"node {number}: card {place * node.network_cards // len(node.members)}"

    def capacity(self, segment: Segment) -> float:
        """See `Fabric`; of segments that `path` or `common` has named."""
        return self._capacities[segment]

    def crosses_sockets(self, one: int, other: int) -> bool:
        """See `Fabric`."""
        (a_node, a), (b_node, b) = self.cluster.members[one], self.cluster.members[other]
        return a_node != b_node or self.node_fabrics[a_node].crosses_sockets(a, b)


def rotated(order: Sequence[int], by: int) -> list[int]:
    """The same cyclic order, begun elsewhere."""
    by %= len(order)
    return [*order[by:], *order[:by]]
