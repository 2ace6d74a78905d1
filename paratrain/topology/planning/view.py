"""One way to look at a plan, be it over one node or over several: members by number, with names, groups and links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from paratrain.topology.costs.cluster import ClusterFabric
from paratrain.topology.costs.contention import Fabric, MachineFabric
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import LinkClass, Machine, MachineWarning, Member
from paratrain.topology.planning.cluster_plan import ClusterPlan
from paratrain.topology.planning.plan import Plan, PlannedEdge
from paratrain.topology.planning.transports import IPC
from paratrain.topology.tree import Tree
from paratrain.topology.words import member_name, plural

AnyPlan = Plan | ClusterPlan
MOST_PEERS = 8
"""Other GPUs whose memory CUDA opens to one GPU at the same time, counted over all programs."""


@dataclass(frozen=True)
class View:
    """The members of a plan are numbered from 0, node by node; `edges` are those of the plan, between such numbers.

    `machine` is the first node, and all others are like it. `names` tell members of all nodes apart ("node 1 GPU3"),
    `labels` those of one node ("GPU3"). `groups` are the members by node and NUMA node, each with its name (empty if
    nobody said).
    """

    plan: AnyPlan
    machine: Machine
    node_count: int
    tree: Tree | None
    edges: tuple[PlannedEdge, ...]
    members: tuple[Member, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...]
    fabric: Fabric

    def link_class(self, one: int, other: int) -> LinkClass:
        """The class of the link between two members."""
        if isinstance(self.plan, ClusterPlan):
            return self.plan.cluster.link_class(one, other)
        return self.machine.link_class(self.members[one].index, self.members[other].index)

    def figure(self, one: int, other: int) -> LinkFigure:
        """The figure of the link between two members."""
        return self.fabric.figure(one, other)

    @property
    def title(self) -> str:
        """``8 GPUs``, ``4 nodes of 8 GPUs``."""
        count = plural(
            len(self.machine.members), "GPU" if self.machine.gpus or not self.machine.members else "CPU rank"
        )
        return count if self.node_count == 1 else f"{self.node_count} nodes of {count}"

    @property
    def warnings(self) -> tuple[MachineWarning, ...]:
        """What is doubtful about the machine, and T10 for members of the tree with more direct neighbours than CUDA allows."""
        counts = [0] * len(self.members)
        for edge in self.edges:
            if edge.transport == IPC:
                counts[edge.parent] += 1
                counts[edge.child] += 1
        crowded = [name for name, count in zip(self.names, counts, strict=True) if count > MOST_PEERS]
        if not crowded:
            return self.machine.warnings
        message = (
            f"{', '.join(crowded)}: more than {MOST_PEERS} direct neighbours in the tree, and CUDA opens the memory of no "
            "more to one GPU; copies to the others may go through the host's memory"
        )
        return (*self.machine.warnings, MachineWarning("T10", message))

    @property
    def node_edges(self) -> tuple[PlannedEdge, ...]:
        """The edges inside the first node."""
        count = len(self.machine.members)
        return tuple(edge for edge in self.edges if edge.parent < count and edge.child < count)


def view_of(plan: AnyPlan) -> View:
    """The view of a plan."""
    if isinstance(plan, ClusterPlan):
        cluster = plan.cluster
        members = tuple(cluster.nodes[node].members[place] for node, place in cluster.members)
        return View(
            plan,
            cluster.nodes[0],
            len(cluster.nodes),
            plan.tree,
            plan.edges,
            members,
            tuple(cluster.name(member) for member in range(cluster.size)),
            tuple(map(member_name, members)),
            _groups(members, [node for node, _ in cluster.members]),
            ClusterFabric(cluster),
        )
    members = plan.machine.members
    place_of = {index: place for place, index in enumerate(plan.machine.indices)}
    edges = tuple(replace(edge, parent=place_of[edge.parent], child=place_of[edge.child]) for edge in plan.edges)
    names = tuple(map(member_name, members))
    groups, fabric = _groups(members, None), MachineFabric(plan.machine)
    return View(plan, plan.machine, 1, plan.tree, edges, members, names, names, groups, fabric)


def _groups(members: Sequence[Member], nodes: Sequence[int] | None) -> tuple[tuple[str, tuple[int, ...]], ...]:
    groups: dict[tuple[int, int | None], list[int]] = {}
    for number, member in enumerate(members):
        groups.setdefault((nodes[number] if nodes else 0, member.numa_node), []).append(number)
    told = any(numa_node is not None for _, numa_node in groups)
    named = []
    for (node, numa_node), numbers in groups.items():
        parts = [f"node {node}"] if nodes else []
        if told:
            parts.append(f"NUMA {'?' if numa_node is None else numa_node}")
        named.append((", ".join(parts), tuple(numbers)))
    return tuple(named)
