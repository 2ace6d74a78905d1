"""Plan trees: over GPUs by what their links cost, over ranks by the nodes they run on. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

from paratrain.errors import TopologyError
from paratrain.topology.tree import Tree


def binomial(size: int, root: int = 0) -> Tree:
    """The binomial tree in the order of the numbers, of depth at most ceil(log2 size).

    With the root counted as 0 and the others after it (cyclically), the parent of m is m without its lowest set bit:
    the children of 0 are 1, 2, 4 ..., and each is ready by the time its parent has added the ones before it.
    """
    members = [(root + step) % size for step in range(size)]
    return Tree.from_edges(size, root, _binomial_edges(members))


def plan_ranks(node_of_rank: Sequence[int], group_of_rank: Sequence[int] | None = None) -> Tree:
    """The tree over ranks, where `node_of_rank[r]` is any number for the node on which rank r runs.

    The ranks of one node form a binomial tree under the node's lowest rank; these lowest ranks form a binomial tree
    under rank 0, the root. A rank adds the children of its own node first, then those of other nodes.

    `group_of_rank[r]` may name the group of rank r within its node, such as the ranks bound to one NUMA node: then each
    group forms a binomial tree under its lowest rank, and these form the node's, so that a node's memory is crossed
    once for each further group.
    """
    if not node_of_rank:
        raise TopologyError("tree of ranks: expected the node of at least one rank, found none")
    ranks = list(range(len(node_of_rank)))
    edges: list[tuple[int, int]] = []
    if group_of_rank is not None:
        ranks, edges = _join_groups(ranks, list(zip(node_of_rank, group_of_rank, strict=True)))
    ranks, within_nodes = _join_groups(ranks, node_of_rank)
    return Tree.from_edges(len(node_of_rank), 0, [*edges, *within_nodes, *_binomial_edges(ranks)])


def _join_groups(ranks: Sequence[int], group_of_rank: Sequence[Hashable]) -> tuple[list[int], list[tuple[int, int]]]:
    """The lowest of the ascending `ranks` of each group, ascending, and the edges of the binomial trees under them."""
    groups: dict[Hashable, list[int]] = {}
    for rank in ranks:
        groups.setdefault(group_of_rank[rank], []).append(rank)
    edges = [edge for members in groups.values() for edge in _binomial_edges(members)]
    return [members[0] for members in groups.values()], edges


def depth_limit(size: int) -> int:
    """ceil(log2 size) + 1: the depth that no planned tree of `size` GPUs exceeds."""
    return (size - 1).bit_length() + 1


def plan_tree(cost: Sequence[Sequence[float]], root: int = 0) -> Tree:
    """The tree over GPUs that greedily uses the cheapest links.

    `cost[a][b]` is what the link between a and b costs, say seconds; it is read as min(cost[a][b], cost[b][a]) and
    may be infinite. Every GPU begins as a cluster. The two clusters with the cheapest link between them are joined by
    that link, again and again, until one is left; among equal costs the smaller union comes first, then the
    shallower, then the lower numbers. A link that would make a cluster too deep is passed over: a cluster of s GPUs
    without the root must have a centre no farther than floor(log2 s) from all of them, the one with the root is at
    most `depth_limit` deep. Two centres can always be joined within these bounds, so that the planner never fails.
    Children are added in the order in which they were joined.
    """
    size = len(cost)
    if not 0 <= root < size:
        raise TopologyError(f"tree of GPUs: root {root} is not one of the members 0..{size - 1}")
    limit = depth_limit(size)
    clusters = {member: _Cluster.of(member) for member in range(size)}  # by numbers of their own
    best = {
        (one, other): _best_edge(cost, clusters[one], clusters[other], root, limit)
        for one in range(size)
        for other in range(one)
    }
    joined: list[tuple[int, int]] = []
    while best:
        pair = min(best, key=best.__getitem__)
        _, a, b = best[pair]
        joined.append((a, b))
        union = clusters.pop(pair[0]).join(clusters.pop(pair[1]), a, b)
        best = {ends: edge for ends, edge in best.items() if pair[0] not in ends and pair[1] not in ends}
        number = size + len(joined)
        for other, cluster in clusters.items():
            best[number, other] = _best_edge(cost, cluster, union, root, limit)
        clusters[number] = union
    return _rooted(size, root, joined)


Key = tuple[float, int, int, int, int]


@dataclass(frozen=True)
class _Cluster:
    """GPUs already joined: `distance[a][b]` counts the edges between members, `farthest[a]` is the largest of a's."""

    distance: dict[int, dict[int, int]]
    farthest: dict[int, int]

    @classmethod
    def of(cls, member: int) -> _Cluster:
        return cls({member: {member: 0}}, {member: 0})

    @cached_property
    def diameter(self) -> int:
        return max(self.farthest.values())

    def join(self, other: _Cluster, a: int, b: int) -> _Cluster:
        """The union by an edge between two members, one of each cluster, whichever of a and b it is."""
        here, there = (a, b) if a in self.distance else (b, a)
        distance = {m: dict(row) for cluster in (self, other) for m, row in cluster.distance.items()}
        for m, near in self.distance[here].items():
            for n, far in other.distance[there].items():
                distance[m][n] = distance[n][m] = near + 1 + far
        return _Cluster(distance, {m: max(row.values()) for m, row in distance.items()})


def _best_edge(
    cost: Sequence[Sequence[float]], one: _Cluster, other: _Cluster, root: int, limit: int
) -> tuple[Key, int, int]:
    """The best edge allowed between two clusters, with the key by which it is compared to others."""
    if root in other.distance:
        one, other = other, one
    union_size = len(one.distance) + len(other.distance)
    best: tuple[Key, int, int] | None = None
    for a, far_a in one.farthest.items():
        for b, far_b in other.farthest.items():
            if root in one.distance:
                depth = max(one.farthest[root], one.distance[root][a] + 1 + far_b)
                allowed = depth <= limit
            else:
                depth = (max(one.diameter, other.diameter, far_a + 1 + far_b) + 1) // 2
                allowed = depth <= union_size.bit_length() - 1
            if allowed:
                price = min(cost[a][b], cost[b][a])
                low, high = min(a, b), max(a, b)
                candidate: tuple[Key, int, int] = ((price, union_size, depth, low, high), low, high)
                best = candidate if best is None else min(best, candidate)
    assert best is not None, "two centres can always be joined"
    return best


def _rooted(size: int, root: int, joined: Sequence[tuple[int, int]]) -> Tree:
    """The tree of undirected edges, seen from the root; children in the order of the edges."""
    neighbours: list[list[int]] = [[] for _ in range(size)]
    for a, b in joined:
        neighbours[a].append(b)
        neighbours[b].append(a)
    edges: list[tuple[int, int]] = []
    above: dict[int, int | None] = {root: None}
    waiting = [root]
    for member in waiting:
        for child in neighbours[member]:
            if child != above[member]:
                above[child] = member
                edges.append((member, child))
                waiting.append(child)
    return Tree.from_edges(size, root, edges)


def _binomial_edges(members: Sequence[int]) -> list[tuple[int, int]]:
    """The (parent, child) edges of the binomial tree over `members`, the first of which is the root."""
    return [(members[place & (place - 1)], members[place]) for place in range(1, len(members))]
