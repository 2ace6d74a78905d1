"""The plan over the nodes of a cluster: trees inside the nodes, joined by a tree over the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from paratrain.errors import TopologyError
from paratrain.topology.costs.cluster import Cluster, ClusterFabric, rotated
from paratrain.topology.costs.cost import EQUAL, Prediction, TreeClock, predict_tree, predict_trees
from paratrain.topology.costs.exchanges import two_trees
from paratrain.topology.link_figures import network_figure
from paratrain.topology.machine import Machine
from paratrain.topology.planner import binomial
from paratrain.topology.planning.growth import in_order_of_readiness
from paratrain.topology.planning.plan import IN_ORDER, Plan, PlannedEdge, mark_best, plan_machine
from paratrain.topology.planning.search import best_tree
from paratrain.topology.planning.sharded import NAME as SHARDED
from paratrain.topology.planning.transports import ACROSS_NODES, BESIDE_NODES, MPI, SHARED_MEMORY, transport_of
from paratrain.topology.tree import Tree, chain, star

MOST_STAR_NODES = 8


@dataclass(frozen=True)
class ClusterPlan:
    """What `plan_cluster` decided; as a `Plan`, over the members of `cluster`.

    `node_plans` holds the plan of each node's own tree and `node_tree` the tree over the nodes, whose edges join the
    roots of their trees; `node_shape` is its shape ("binomial", "binary", "chain" or "star"). `tree` is both together, its
    root on node 0. The ends of `edges` are numbers of members. If `shape` is "sharded", `trees` are one tree for each
    member of a node, which joins the members at the same place of all nodes.
    """

    cluster: Cluster
    byte_count: int
    node_plans: tuple[Plan, ...]
    node_tree: Tree
    node_shape: str
    tree: Tree
    predictions: tuple[Prediction, ...]
    shape: str
    tree_shape: str
    trees: tuple[Tree, ...]

    @property
    def edges(self) -> tuple[PlannedEdge, ...]:
        """The edges of `tree`, level by level from the root."""
        fabric = ClusterFabric(self.cluster)
        levels = self.tree.levels()
        edges = []
        for parent, child in self.tree.edges():
            (above, one), (below, other) = self.cluster.members[parent], self.cluster.members[child]
            inside = above == below
            transport, reason = transport_of(fabric.node_fabrics[above], one, other) if inside else (MPI, ACROSS_NODES)
            if transport == SHARED_MEMORY:
                transport, reason = MPI, BESIDE_NODES
            figure = fabric.figure(parent, child)
            word = self.cluster.link_class(parent, child)
            numbers = figure.bytes_per_s, figure.latency_s, figure.origin
            edges.append(PlannedEdge(parent, child, levels[child], word, transport, reason, *numbers))
        return tuple(edges)

    @property
    def rank_order(self) -> tuple[tuple[int, int], ...]:
        """For each rank, where ranks go node by node, its node and the index of the GPU that it should drive there.

        On every node the root of the node's tree comes first, so that the root of `tree` is rank 0.
        """
        return tuple((number, index) for number, plan in enumerate(self.node_plans) for index in plan.rank_order)

    def tree_of_ranks(self, ranks: Sequence[tuple[int, int]]) -> Tree:
        """`tree` over ranks that are dealt to nodes in any way: ranks[r] is the node and the local rank of rank r.

        Local rank i of a node drives the GPU at place i of its plan's `rank_order`. TopologyError if `ranks` are not
        the members of the cluster, once each.
        """
        number = {
            (node, place): self.cluster.first[node] + plan.machine.indices.index(index)
            for node, plan in enumerate(self.node_plans)
            for place, index in enumerate(plan.rank_order)
        }
        if sorted(ranks) != sorted(number):
            raise TopologyError(f"tree of ranks: expected each of {len(number)} pairs of node and local rank once")
        rank_of = {number[place]: rank for rank, place in enumerate(ranks)}
        return self.tree.renumbered([rank_of[member] for member in range(self.cluster.size)])


def plan_cluster(cluster: Cluster, byte_count: int, shape: str = "auto") -> ClusterPlan:
    """Plan exchanges of `byte_count` bytes over all members of a cluster; the root is on node 0.

    Every kind of node is planned once, as `plan_machine` does with this `shape`. Over the nodes the fastest of a
    binomial tree, a binary tree, a chain and (for few nodes) a star is taken; nodes with faster network cards come first
    in it. The index-order tree replaces both if it is predicted to be faster.
    """
    fabric = ClusterFabric(cluster)
    inner = "auto" if shape == "sharded" else shape
    plans: dict[int, Plan] = {}
    for node_fabric in fabric.node_fabrics:
        if id(node_fabric) not in plans:
            plans[id(node_fabric)] = plan_machine(node_fabric.machine, byte_count, shape=inner)
    node_plans = tuple(plans[id(node_fabric)] for node_fabric in fabric.node_fabrics)
    roots, local = [], []
    for number, plan in enumerate(node_plans):
        assert plan.tree is not None
        roots.append(cluster.first[number] + plan.tree.root)
        local += [(cluster.first[number] + a, cluster.first[number] + b) for a, b in plan.tree.edges()]
    candidates = []
    for name, nodes in _node_trees(cluster.nodes):
        joined = local + [(roots[above], roots[below]) for above, below in nodes.edges()]
        tree = _ready_first(fabric, roots[0], joined, byte_count)
        candidates.append((_seconds(fabric, tree, byte_count), name, nodes, tree))
    _, name, nodes, tree = min(candidates, key=lambda one: float(f"{one[0]:.9e}"))
    in_order = binomial(cluster.size)
    tree_shape = node_plans[0].tree_shape
    predicted = predict_tree(fabric, tree, byte_count, f"{tree_shape}s in the nodes, {name} over them")
    predicted_in_order = predict_tree(fabric, in_order, byte_count, IN_ORDER)
    if shape == "index" or (shape == "auto" and predicted_in_order.reduce_s < predicted.reduce_s * (1 - EQUAL)):
        tree, predicted, tree_shape = in_order, replace(predicted_in_order, method="tree"), "index"
    predictions = [predicted, predicted_in_order]
    trees: tuple[Tree, ...] = (tree,)
    chosen = tree_shape
    if shape in ("auto", "sharded") and cluster.size > 2 and len(set(cluster.nodes)) == 1:
        sharded, in_shards = best_sharded(fabric, byte_count)
        predictions.append(in_shards)
        if shape == "sharded" or in_shards.total_s < predicted.total_s:
            trees, chosen = tuple(sharded), "sharded"
    return ClusterPlan(
        cluster, byte_count, node_plans, nodes, name, tree, mark_best(predictions), chosen, tree_shape, trees
    )


def best_sharded(fabric: ClusterFabric, byte_count: int) -> tuple[list[Tree], Prediction]:
    """For nodes all alike the fastest set of one tree for each place in a node, with its prediction.

    Each tree goes over its shard in every node to the member at that place, then over these members by a binomial tree or
    a chain. The roots of the trees are spread over the nodes.
    """
    cluster = fabric.cluster
    node_count, per_node = len(cluster.nodes), len(cluster.nodes[0].members)
    inside = [
        best_tree(fabric.node_fabrics[0], max(1, byte_count // per_node), place, "tree") for place in range(per_node)
    ]
    compared = []
    for over_nodes in (binomial(node_count), chain(node_count)):
        trees = []
        for place in range(per_node):
            nodes = rotated(range(node_count), place * node_count // per_node)
            edges = [(at + a, at + b) for at in cluster.first for a, b in inside[place].edges()]
            heads = [cluster.first[number] + place for number in nodes]
            edges += [(heads[a], heads[b]) for a, b in over_nodes.edges()]
            trees.append(_ready_first(fabric, heads[0], edges, byte_count))
        compared.append((predict_trees(fabric, trees, byte_count, SHARDED), trees))
    best, trees = min(compared, key=lambda one: float(f"{one[0].total_s:.9e}"))
    return trees, best


def _node_trees(nodes: Sequence[Machine]) -> list[tuple[str, Tree]]:
    """The trees over the nodes to choose from, all with node 0 as their root."""
    size = len(nodes)
    rest = sorted(range(1, size), key=lambda number: -network_figure(nodes[number]).bytes_per_s)
    order = [0, *rest]
    trees = [("binomial", binomial(size)), ("chain", chain(size))]
    if size > 2:
        binary = two_trees(range(size))[0]
        at_root = list(range(size))
        at_root[0], at_root[binary.root] = binary.root, 0
        trees.append(("binary", binary.renumbered(at_root)))
    if size <= MOST_STAR_NODES:
        trees.append(("star", star(size)))
    return [(name, tree.renumbered(order)) for name, tree in trees]


def _ready_first(fabric: ClusterFabric, root: int, edges: Sequence[tuple[int, int]], byte_count: int) -> Tree:
    """The tree of these edges; children in the order in which they are ready for the whole buffer."""
    parent: list[int | None] = [None] * fabric.size
    for above, below in edges:
        parent[below] = above
    assert parent[root] is None
    seconds = [
        0.0 if above is None else fabric.seconds(member, above, byte_count) for member, above in enumerate(parent)
    ]
    return in_order_of_readiness(parent, seconds)


def _seconds(fabric: ClusterFabric, tree: Tree, byte_count: int) -> float:
    clock = TreeClock(fabric, tree)
    return clock.reduce_s(byte_count, clock.best_chunk_count(byte_count))
