"""A rooted tree over numbered members (GPUs or ranks), in one fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paratrain.errors import TopologyError


@dataclass(frozen=True)
class Tree:
    """A rooted tree over the members 0 .. size-1.

    `parent[m]` is the parent of member m, None for the root. `children[m]` lists m's children in the order in which a
    parent adds their gradients; the order is part of the tree, since it decides the bits of a floating-point sum.
    A tree is checked when it is built: TopologyError if it does not span its members or has a cycle.
    """

    root: int
    parent: tuple[int | None, ...]
    children: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        self.validate()

    @classmethod
    def from_parents(cls, parent: Sequence[int | None]) -> Tree:
        """The tree with these parents; children are added from the lowest number to the highest."""
        roots = [member for member, above in enumerate(parent) if above is None]
        if len(roots) != 1:
            raise TopologyError(f"tree: expected one member without a parent (the root), found {len(roots)}: {roots}")
        return cls.from_edges(len(parent), roots[0], [(p, m) for m, p in enumerate(parent) if p is not None])

    @classmethod
    def from_edges(cls, size: int, root: int, edges: Sequence[tuple[int, int]]) -> Tree:
        """The tree of these (parent, child) edges; each parent adds its children in the order of `edges`."""
        parent: list[int | None] = [None] * size
        children: list[list[int]] = [[] for _ in range(size)]
        for above, below in edges:
            if not (0 <= above < size and 0 <= below < size):
                raise TopologyError(f"tree: edge {above} -> {below} names a member outside 0..{size - 1}")
            if parent[below] is not None:
                raise TopologyError(f"tree: member {below} has two parents, {parent[below]} and {above}")
            parent[below] = above
            children[above].append(below)
        return cls(root, tuple(parent), tuple(tuple(c) for c in children))

    @property
    def size(self) -> int:
        """The count of members."""
        return len(self.parent)

    @property
    def depth(self) -> int:
        """The count of edges from the root to the member farthest from it; 0 for a single member."""
        return max(self.levels())

    def levels(self) -> tuple[int, ...]:
        """For each member, the count of edges between it and the root."""
        level = [0] * self.size
        for member in self.top_down():
            above = self.parent[member]
            level[member] = 0 if above is None else level[above] + 1
        return tuple(level)

    def top_down(self) -> Iterator[int]:
        """The members, every parent before its children, level by level."""
        waiting = [self.root]
        for member in waiting:
            yield member
            waiting.extend(self.children[member])

    def edges(self) -> Iterator[tuple[int, int]]:
        """The (parent, child) pairs, level by level from the root."""
        for member in self.top_down():
            for child in self.children[member]:
                yield member, child

    def renumbered(self, number: Sequence[int]) -> Tree:
        """The same tree in which member m is called number[m]; `number` is a permutation of the members."""
        edges = [(number[above], number[below]) for above, below in self.edges()]
        return Tree.from_edges(self.size, number[self.root], edges)

    def validate(self) -> None:
        """Check that parent and children agree and that every member is reached once from the root; TopologyError."""
        size = len(self.parent)
        if size == 0:
            raise TopologyError("tree: a tree needs at least one member, found none")
        if len(self.children) != size:
            raise TopologyError(f"tree: {size} parents but {len(self.children)} lists of children")
        if not 0 <= self.root < size:
            raise TopologyError(f"tree: root {self.root} is not one of the members 0..{size - 1}")
        if self.parent[self.root] is not None:
            raise TopologyError(f"tree: the root {self.root} has a parent, {self.parent[self.root]}")
        reached = {self.root}
        waiting = [self.root]
        for member in waiting:
            for child in self.children[member]:
                if not 0 <= child < size or self.parent[child] != member:
                    raise TopologyError(f"tree: {member} lists {child} as its child, but {child} has another parent")
                if child in reached:
                    raise TopologyError(f"tree: member {child} is reached twice")
                reached.add(child)
                waiting.append(child)
        missing = sorted(set(range(size)) - reached)
        if missing:
            raise TopologyError(f"tree: members {missing} are not reached from the root {self.root}")


def chain(size: int) -> Tree:
    """The tree 0 -> 1 -> ... -> size-1, of depth size-1."""
    return Tree.from_edges(size, 0, [(member, member + 1) for member in range(size - 1)])


def star(size: int) -> Tree:
    """The tree in which member 0 is the parent of all others, of depth 1."""
    return Tree.from_edges(size, 0, [(0, member) for member in range(1, size)])
