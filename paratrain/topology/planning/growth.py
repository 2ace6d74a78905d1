"""Trees that grow from a root over the links of a fabric, and trees of a given shape. Pure and deterministic.

Members are numbered so that the lower number goes first wherever the links leave the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from paratrain.topology.tree import Tree

Seconds = Sequence[Sequence[float]]


def grow(seconds: Seconds, root: int, most_children: int | None = None) -> list[int | None]:
    """The parents of a broadcast tree that grows by the edge that completes earliest.

    A member that has the data hands it to one other at a time, to at most `most_children` of them: 1 makes a chain, 2 a
    binary tree. (Earliest completing edge first: Bhat, Raghavendra and Prasanna 2003, "Efficient collective
    communication in distributed heterogeneous systems".) `seconds[a][b]` is the time of one transfer.
    """
    size = len(seconds)
    parent: list[int | None] = [None] * size
    free_at = {root: 0.0}  # when a member that has the data can hand it to another
    count = [0] * size
    waiting = [member for member in range(size) if member != root]
    while waiting:
        _, _, source, target = min(
            (free + seconds[source][target], free, source, target)
            for source, free in free_at.items()
            for target in waiting
        )
        parent[target] = source
        waiting.remove(target)
        free_at[target] = free_at[source] = free_at[source] + seconds[source][target]
        count[source] += 1
        if most_children is not None and count[source] == most_children:
            del free_at[source]
    return parent


def near_first(seconds: Seconds, far: Sequence[Sequence[bool]], root: int) -> list[int | None]:
    """The parents of a tree that uses as few far links as can be, whatever its depth.

    Members that near links join are reached over near links alone; the groups they form are then joined by the fewest far
    links. Within these bounds each member is reached as early as possible.
    """
    size = len(seconds)
    parent: list[int | None] = [None] * size
    free_at = {root: 0.0}
    waiting = [member for member in range(size) if member != root]
    while waiting:
        near_edges = [(a, b) for a, b in product(free_at, waiting) if not far[a][b]]
        edges = near_edges or list(product(free_at, waiting))
        _, _, source, target = min((free_at[a] + seconds[a][b], free_at[a], a, b) for a, b in edges)
        parent[target] = source
        waiting.remove(target)
        free_at[target] = free_at[source] = free_at[source] + seconds[source][target]
    return parent


def top_down(parent: Sequence[int | None]) -> tuple[list[list[int]], list[int]]:
    """Each member's children, in the order of their numbers, and all members, every parent before its children."""
    children: list[list[int]] = [[] for _ in parent]
    root = 0
    for member, above in enumerate(parent):
        if above is None:
            root = member
        else:
            children[above].append(member)
    order = [root]
    for member in order:
        order.extend(children[member])
    return children, order


def in_order_of_readiness(parent: Sequence[int | None], edge_seconds: Sequence[float]) -> Tree:
    """The tree of these parents in which each adds its children in the order in which they are ready.

    `edge_seconds[m]` is the time of the transfer from m to its parent. For links that are not shared no other order is
    faster: a child that is ready first never has to wait for one that is not (earliest release date first).
    """
    size = len(parent)
    children, order = top_down(parent)
    ready = [0.0] * size
    for member in reversed(order):
        below = children[member]
        if len(below) > 1:
            below.sort(key=lambda child: (ready[child], child))
        time = 0.0
        for child in below:
            time = max(time, ready[child]) + edge_seconds[child]
        ready[member] = time
    return Tree(order[0], tuple(parent), tuple(map(tuple, children)))


def edge_seconds_of(parent: Sequence[int | None], seconds: Seconds) -> list[float]:
    """For each member the seconds of the transfer to its parent, 0 for the root."""
    return [0.0 if above is None else seconds[member][above] for member, above in enumerate(parent)]


def rerooted(parent: Sequence[int | None], root: int) -> list[int | None]:
    """The parents of the same edges, seen from another root."""
    turned = list(parent)
    above: int | None = None
    member: int | None = root
    while member is not None:
        following = turned[member]
        turned[member] = above
        above, member = member, following
    return turned


def star_at(size: int, root: int) -> list[int | None]:
    """The parents of the star around `root`."""
    return [None if member == root else root for member in range(size)]


def every_tree(size: int) -> list[list[int | None]]:
    """The parents of every tree over the members 0 .. size-1, with the root 0: size^(size-2) of them (Cayley).

    Each comes from its Pruefer sequence.
    """
    if size < 3:
        return [[None, 0][:size]]
    trees = []
    for sequence in product(range(size), repeat=size - 2):
        degree = [1 + sequence.count(member) for member in range(size)]
        edges: list[tuple[int, ...]] = []
        for member in sequence:
            leaf = degree.index(1)
            edges.append((leaf, member))
            degree[leaf] -= 1
            degree[member] -= 1
        edges.append(tuple(member for member in range(size) if degree[member] == 1))
        trees.append(_parents(size, edges))
    return trees


def _parents(size: int, edges: Sequence[tuple[int, ...]]) -> list[int | None]:
    neighbours: list[list[int]] = [[] for _ in range(size)]
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    parent: list[int | None] = [None] * size
    order = [0]
    for member in order:
        for other in neighbours[member]:
            if other != parent[member]:
                parent[other] = member
                order.append(other)
    return parent
