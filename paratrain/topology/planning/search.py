"""The search for the tree with the least predicted time: candidates of every shape, then improvement by small steps.

Pure and deterministic. Nothing here looks at indices or bus ids: the members come in the order that breaks ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from paratrain.topology.costs.contention import Fabric
from paratrain.topology.costs.cost import EQUAL, TreeClock
from paratrain.topology.planner import plan_tree
from paratrain.topology.planning.growth import every_tree, grow, near_first, rerooted, star_at
from paratrain.topology.planning.scoring import Scorer
from paratrain.topology.tree import Tree

Parents = Sequence["int | None"]
EVERY_TREE = 5  # members up to which all trees are compared
EVERY_ROOT = 16  # members up to which every candidate is tried under every root
EVERY_START = 8  # members up to which improvement begins from every finalist, not from the best one alone
EVALUATIONS = 3200  # trees that improvement may compare from one beginning, divided by the count of members
FINALISTS = 6  # candidates whose time is worked out in full


def best_tree(fabric: Fabric, byte_count: int, root: int | None = None, shape: str = "auto") -> Tree:
    """The tree of this shape ("auto", "tree", "chain" or "star") with the least predicted time.

    `root` None leaves the root free. Among equal times the one that keeps the depth limit comes first, then the one with
    fewer edges between sockets, then the shallower.
    """
    size = fabric.size
    if size == 1:
        return Tree.from_parents([None])
    scorer = Scorer(fabric, byte_count)
    roots = list(range(size)) if root is None else [root]
    ranked = _ranked(scorer, _candidates(scorer, roots, shape), FINALISTS)
    found = [parent for _, parent in ranked]
    if shape == "chain" or (size > EVERY_TREE and shape != "star"):
        tried = ranked if size <= EVERY_START else ranked[:1]
        found = [*(_improved(scorer, one, root is None, shape) for one in tried), *found]
    trees = [tree for parent in found for tree in scorer.trees(parent)]
    return min(trees, key=lambda tree: _exact_key(scorer, fabric, tree))


def _exact_key(scorer: Scorer, fabric: Fabric, tree: Tree) -> Key:
    """`Scorer.key` with the time that `cost` predicts."""
    clock = TreeClock(fabric, tree)
    seconds = clock.reduce_s(scorer.byte_count, clock.best_chunk_count(scorer.byte_count))
    return scorer.key_of(tree.parent, seconds)


Key = tuple[float, int, int, int]


def _ranked(scorer: Scorer, candidates: Iterable[Parents], count: int) -> list[tuple[Key, Parents]]:
    """The best candidates with their keys, the best one first; among equals the first ones."""
    scored = [(scorer.score(parent), parent) for parent in candidates]
    enough = sorted(score for score, _ in scored)[:count][-1] * (1 + EQUAL)
    keyed = [(scorer.key_of(parent, score), parent) for score, parent in scored if score <= enough]
    return sorted(keyed, key=lambda one: one[0])[:count]


def _candidates(scorer: Scorer, roots: Sequence[int], shape: str) -> Iterator[Parents]:
    size, seconds = scorer.size, scorer.seconds
    if shape == "star":
        yield from (star_at(size, root) for root in roots)
        return
    some_roots = roots if size <= EVERY_ROOT else roots[:2]
    if shape == "chain":
        yield from (grow(seconds, root, 1) for root in some_roots)
        return
    apart = scorer.seconds_apart
    for matrix in [seconds] if apart is None else [seconds, apart]:
        joined = plan_tree(matrix, roots[0]).parent
        yield from (rerooted(joined, root) for root in some_roots)
    if size <= EVERY_TREE:
        yield from (rerooted(tree, root) for tree in every_tree(size) for root in roots)
        return
    if size > EVERY_START and len(some_roots) > 1:
        # Every root of the joined tree was tried; growth begins at the best of them, and improvement tries the others.
        some_roots = sorted(some_roots, key=lambda root: scorer.score(rerooted(joined, root)))[:2]
    for root in some_roots:
        yield grow(seconds, root)
        if apart is not None:
            yield grow(apart, root)
        yield near_first(seconds, scorer.far, root)
        yield star_at(size, root)
        if scorer.most_chunks > 1:
            yield grow(seconds, root, 2)
            if shape == "auto":
                yield grow(seconds, root, 1)


def _improved(scorer: Scorer, begin: tuple[Key, Parents], free_root: bool, shape: str) -> Parents:
    """The tree after small steps, each to the best of the trees around it, while one of them is better."""
    key, parent = begin
    least = scorer.least_s * (1 + EQUAL)
    begun = scorer.evaluations
    while key[0] > least and scorer.evaluations - begun < EVALUATIONS // scorer.size:
        around = list(_neighbours(scorer, parent, free_root, shape))
        if not around:
            break
        found, moved = _ranked(scorer, around, 1)[0]
        if found >= key:
            break
        key, parent = found, moved
    return parent


def _neighbours(scorer: Scorer, parent: Parents, free_root: bool, shape: str) -> Iterator[Parents]:
    """Trees that differ in one small step, which begins where the time is lost.

    A member whose edge decides the time is hung below another, or changes places with another; or another member is the
    root.
    """
    root = parent.index(None)
    critical = scorer.critical(parent)
    for member in dict.fromkeys(critical):
        below = _subtree(parent, member)
        if shape != "chain":
            for above in range(scorer.size):
                if above not in below and above != parent[member]:
                    moved = list(parent)
                    moved[member] = above
                    yield moved
        for other in range(scorer.size):
            if other != member and (free_root or other != root):
                yield _swapped(parent, member, other)
    if free_root and shape != "chain" and scorer.size <= EVERY_ROOT:
        yield from (rerooted(parent, other) for other in range(scorer.size) if other != root)


def _subtree(parent: Parents, member: int) -> set[int]:
    below = {member}
    while True:
        more = {child for child, above in enumerate(parent) if above in below} - below
        if not more:
            return below
        below |= more


def _swapped(parent: Parents, one: int, other: int) -> list[int | None]:
    """The tree in which two members have changed places."""
    name = {one: other, other: one}
    swapped: list[int | None] = [None] * len(parent)
    for member, above in enumerate(parent):
        swapped[name.get(member, member)] = None if above is None else name.get(above, above)
    return swapped
