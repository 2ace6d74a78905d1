"""From a machine to the tree its members should use, with each edge's transport and the times predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paratrain.errors import TopologyError
from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.costs.cost import EQUAL, Prediction, predict_tree
from paratrain.topology.machine import LinkClass, Machine, gpu_list
from paratrain.topology.planner import binomial
from paratrain.topology.planning.canonical import canonical_places
from paratrain.topology.planning.search import best_tree
from paratrain.topology.planning.sharded import best_shards
from paratrain.topology.planning.transports import transport_of
from paratrain.topology.tree import Tree

IN_ORDER = "tree in the order of the indices"
SHAPES = ("auto", "tree", "chain", "star", "index", "sharded")


@dataclass(frozen=True)
class PlannedEdge:
    """One edge of a planned tree, between the members with two indices.

    `level` is the child's distance from the root in edges. `transport` is "ipc" (CUDA IPC peer copy), "host" (pinned
    memory of the host), "shared" (shared memory between CPU ranks) or "mpi" (between nodes), `reason` a sentence that
    says why. The figures are those of the transport; `origin` is that of the figure: "default", "measured" or "file".
    """

    parent: int
    child: int
    level: int
    link_class: LinkClass
    transport: str
    reason: str
    bytes_per_s: float
    latency_s: float
    origin: str


@dataclass(frozen=True)
class Plan:
    """What `plan_machine` decided.

    `tree` is the best single tree over the places in `machine.members` (None if there is no member) and `tree_shape`
    its shape: "tree", "chain", "star" or "index" (the binomial tree in the order of the indices). `shape` and `trees`
    are the best of all: the same with the one tree, or "sharded" with several trees, of which tree i reduces and
    broadcasts shard i of len(trees) equal ones. `edges` are those of `tree`, level by level from the root.
    `predictions` begins with those of `tree` and of the index-order tree; the fastest of them has `best` set.
    """

    machine: Machine
    byte_count: int
    tree: Tree | None
    predictions: tuple[Prediction, ...]
    edges: tuple[PlannedEdge, ...] = ()
    shape: str = "tree"
    tree_shape: str = "tree"
    trees: tuple[Tree, ...] = ()

    def index(self, place: int) -> int:
        """The index of the member at a place, that is, of a member of the tree."""
        return self.machine.members[place].index

    @property
    def rank_order(self) -> tuple[int, ...]:
        """The index of the GPU that each rank of the node should drive, so that the root of `tree` is rank 0.

        The root comes first, then the others in their order.
        """
        if self.tree is None:
            return ()
        root = self.index(self.tree.root)
        return (root, *(index for index in self.machine.indices if index != root))

    @property
    def rank_tree(self) -> Tree | None:
        """`tree` over the ranks of `rank_order`; its root is rank 0."""
        if self.tree is None:
            return None
        return self.tree.renumbered([self.rank_order.index(index) for index in self.machine.indices])


def plan_machine(machine: Machine, byte_count: int, root: int | None = None, shape: str = "auto") -> Plan:
    """Plan exchanges of `byte_count` bytes, with the member of the index `root` at the root (any if None).

    The tree is the one with the least predicted time among trees that follow the cheapest links, chains, stars and the
    index-order tree; among equal times the first in that order, and then the one that bus ids (or, without them, the
    links themselves) put first, so that renumbering the GPUs changes nothing. `shape` asks for one of `SHAPES`.
    TopologyError if the root is not one of the machine's members or the shape is unknown.
    """
    if root is not None and root not in machine.indices:
        raise TopologyError(f"root {root}: expected one of the machine's GPUs; it has {gpu_list(machine.indices)}")
    if shape not in SHAPES:
        raise TopologyError(f"shape '{shape}': expected one of {', '.join(SHAPES)}")
    if not machine.members:
        return Plan(machine, byte_count, None, ())
    place = None if root is None else machine.indices.index(root)
    fabric = MachineFabric(machine)
    order = canonical_places(fabric, place)
    ordered = fabric.reordered(order)
    in_order = binomial(len(order), place or 0)
    predicted_in_order = predict_tree(fabric, in_order, byte_count, IN_ORDER)
    if shape == "index":
        tree, predicted, tree_shape = in_order, replace(predicted_in_order, method="tree"), "index"
    else:
        wanted = "auto" if shape == "sharded" else shape
        tree = best_tree(ordered, byte_count, None if place is None else order.index(place), wanted)
        tree_shape = shape_of(tree)
        predicted = predict_tree(ordered, tree, byte_count, tree_shape)
        tree = tree.renumbered(order)
        if wanted == "auto" and predicted_in_order.reduce_s < predicted.reduce_s * (1 - EQUAL):
            tree, predicted, tree_shape = in_order, replace(predicted_in_order, method="tree"), "index"
    predictions = [predicted, predicted_in_order]
    trees: tuple[Tree, ...] = (tree,)
    chosen = tree_shape
    if shape in ("auto", "sharded") and len(order) > 2:
        shards, in_shards = best_shards(ordered, byte_count)
        predictions.append(in_shards)
        if shape == "sharded" or in_shards.total_s < predicted.total_s:
            trees, chosen = tuple(one.renumbered(order) for one in shards), "sharded"
    return Plan(
        machine, byte_count, tree, mark_best(predictions), planned_edges(fabric, tree), chosen, tree_shape, trees
    )


def shape_of(tree: Tree) -> str:
    """The word for a tree: "star" or "chain" if it is one and has three members or more, else "tree"."""
    if tree.size > 2 and tree.depth == 1:
        return "star"
    return "chain" if tree.size > 2 and tree.depth == tree.size - 1 else "tree"


def mark_best(predictions: list[Prediction]) -> tuple[Prediction, ...]:
    """The predictions with `best` set for the first of the fastest."""
    fastest = min(range(len(predictions)), key=lambda at: predictions[at].total_s, default=0)
    return tuple(replace(one, best=at == fastest) for at, one in enumerate(predictions))


def planned_edges(fabric: MachineFabric, tree: Tree) -> tuple[PlannedEdge, ...]:
    """The edges of a tree over the places in `fabric.machine.members`, with transports, reasons and figures."""
    machine = fabric.machine
    levels = tree.levels()
    edges = []
    for parent, child in tree.edges():
        transport, reason = transport_of(fabric, parent, child)
        figure = fabric.figure(parent, child)
        above, below = machine.members[parent].index, machine.members[child].index
        word = machine.link_class(above, below)
        numbers = figure.bytes_per_s, figure.latency_s, figure.origin
        edges.append(PlannedEdge(above, below, levels[child], word, transport, reason, *numbers))
    return tuple(edges)
