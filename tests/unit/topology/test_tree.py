from __future__ import annotations

import pytest

from paratrain.errors import TopologyError
from paratrain.topology.tree import Tree, chain, star


def test_chain_and_star() -> None:
    assert chain(4) == Tree(0, (None, 0, 1, 2), ((1,), (2,), (3,), ()))
    assert chain(4).depth == 3
    assert star(4) == Tree(0, (None, 0, 0, 0), ((1, 2, 3), (), (), ()))
    assert star(4).depth == 1
    assert chain(1) == star(1) == Tree(0, (None,), ((),))
    assert star(1).depth == 0


def test_walks_parents_before_children_in_the_order_of_adding() -> None:
    tree = Tree.from_edges(5, 2, [(2, 4), (2, 0), (0, 3), (4, 1)])
    assert tree.children[2] == (4, 0)
    assert list(tree.top_down()) == [2, 4, 0, 1, 3]
    assert list(tree.edges()) == [(2, 4), (2, 0), (4, 1), (0, 3)]
    assert tree.levels() == (1, 2, 0, 2, 1)


def test_from_parents() -> None:
    assert Tree.from_parents([1, None, 1, 0]) == Tree(1, (1, None, 1, 0), ((3,), (0, 2), (), ()))
    with pytest.raises(TopologyError, match=r"one member without a parent \(the root\), found 2"):
        Tree.from_parents([None, None])


@pytest.mark.parametrize(
    ("root", "parent", "children", "words"),
    [
        (0, (), (), "at least one member"),
        (0, (None, 0), ((1,),), "2 parents but 1 lists"),
        (2, (None, 0), ((1,), ()), "root 2 is not one"),
        (1, (None, 0), ((1,), ()), "the root 1 has a parent"),
        (0, (None, 0, 1), ((1, 2), (), ()), "another parent"),
        (0, (None, 0), ((1, 1), ()), "reached twice"),
        (0, (None, 2, 1), ((), (2,), (1,)), r"\[1, 2\] are not reached"),
        (0, (None, 0), ((5,), ()), "another parent"),
    ],
)
def test_what_is_no_tree(
    root: int, parent: tuple[int | None, ...], children: tuple[tuple[int, ...], ...], words: str
) -> None:
    with pytest.raises(TopologyError, match=words):
        Tree(root, parent, children)


def test_edges_that_make_no_tree() -> None:
    with pytest.raises(TopologyError, match="two parents, 0 and 1"):
        Tree.from_edges(3, 0, [(0, 2), (1, 2)])
    with pytest.raises(TopologyError, match=r"names a member outside 0\.\.1"):
        Tree.from_edges(2, 0, [(0, 2)])
