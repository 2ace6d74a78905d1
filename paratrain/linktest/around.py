"""Another tree of ranks where links of the planned one are bad."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from paratrain.topology.tree import Tree

__all__ = ["plan_around"]


def plan_around(tree: Tree, node_of_rank: Sequence[int], bad: Collection[tuple[int, int]]) -> Tree | None:
    """The tree with the pairs in `bad` avoided and as little else changed as can be; None if there is no such tree.

    What hangs under a bad edge moves, as a whole, under another parent: of its own node if there is one, then the nearest to
    the root, with the fewest children, of the lowest rank; it is added after the children that were there. Where every such
    parent is bad, another member of the branch becomes its top.
    """
    avoided = {frozenset(pair) for pair in bad}
    edges = [edge for edge in tree.edges() if frozenset(edge) not in avoided]
    waiting = [child for parent, child in tree.edges() if frozenset((parent, child)) in avoided]
    while waiting:
        level = _reach(tree.size, edges, tree.root)
        joints = [
            (
                joint != top,
                node_of_rank[parent] != node_of_rank[joint],
                level[parent],
                _degree(edges, parent),
                parent,
                joint,
            )
            for top in waiting
            for parent in level
            for joint in _reach(tree.size, edges, top)
            if frozenset((parent, joint)) not in avoided
        ]
        if not joints:
            return None
        edges.append(min(joints)[-2:])
        level = _reach(tree.size, edges, tree.root)
        waiting = [top for top in waiting if top not in level]
    level = _reach(tree.size, edges, tree.root)
    return Tree.from_edges(tree.size, tree.root, _directed(edges, level))


def _reach(size: int, edges: Sequence[tuple[int, int]], start: int) -> dict[int, int]:
    """The members joined to `start` by edges in any direction, with their distances from it."""
    neighbours: list[list[int]] = [[] for _ in range(size)]
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    level = {start: 0}
    waiting = [start]
    for member in waiting:
        for other in neighbours[member]:
            if other not in level:
                level[other] = level[member] + 1
                waiting.append(other)
    return level


def _degree(edges: Sequence[tuple[int, int]], member: int) -> int:
    return sum(member in edge for edge in edges)


def _directed(edges: Sequence[tuple[int, int]], level: dict[int, int]) -> list[tuple[int, int]]:
    return [(a, b) if level[a] < level[b] else (b, a) for a, b in edges]
