"""Trees that avoid bad links."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from paratrain.linktest.around import plan_around
from paratrain.topology.planner import binomial, plan_ranks
from paratrain.topology.tree import chain


def pairs_of(edges: object) -> set[frozenset[int]]:
    return {frozenset(edge) for edge in edges}  # type: ignore[attr-defined]


def test_without_bad_links_the_tree_stays() -> None:
    tree = plan_ranks([0, 0, 1, 1, 2])
    assert plan_around(tree, [0, 0, 1, 1, 2], set()) == tree


def test_a_branch_moves_within_its_node_where_it_can() -> None:
    nodes = [0, 0, 0, 1, 1, 1]
    tree = plan_ranks(nodes)  # 0: 1, 2, 3 and 3: 4, 5
    moved = plan_around(tree, nodes, {(0, 2)})
    assert moved is not None
    assert moved.parent == (None, 0, 1, 0, 3, 3)
    moved = plan_around(tree, nodes, {(3, 5)})
    assert moved is not None
    assert moved.parent == (None, 0, 0, 0, 3, 4)


def test_the_link_between_two_nodes_goes_over_other_ranks() -> None:
    nodes = [0, 0, 1, 1]
    moved = plan_around(plan_ranks(nodes), nodes, {(0, 2)})
    assert moved is not None
    assert moved.parent == (None, 0, 1, 2)


def test_a_branch_is_taken_up_by_another_member() -> None:
    moved = plan_around(chain(3), [0, 0, 0], {(0, 1)})
    assert moved is not None
    assert moved.parent == (None, 2, 0)


def test_a_rank_that_nobody_reaches_has_no_tree() -> None:
    assert plan_around(binomial(3), [0] * 3, {(0, 2), (1, 2)}) is None
    assert plan_around(chain(2), [0, 0], {(0, 1)}) is None


@given(st.integers(1, 9), st.data())
def test_bad_links_are_avoided_whenever_that_is_possible(size: int, data: st.DataObject) -> None:
    nodes = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    every = list(itertools.combinations(range(size), 2))
    bad = set(data.draw(st.lists(st.sampled_from(every), unique=True))) if every else set()
    tree = plan_ranks(nodes)
    found = plan_around(tree, nodes, bad)
    reached = {0}
    for _ in range(size):
        reached |= {b for pair in every for a, b in (pair, pair[::-1]) if a in reached and pair not in bad}
    assert (found is not None) == (len(reached) == size)
    if found is not None:
        assert found.root == tree.root
        assert not pairs_of(found.edges()) & pairs_of(bad)
        if not pairs_of(tree.edges()) & pairs_of(bad):
            assert found == tree
