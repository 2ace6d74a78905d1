from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.errors import DeviceError
from paratrain.topology.dealing import deal_gpus, root_first, tree_of_ranks
from paratrain.topology.tree import Tree


def test_the_root_goes_to_rank_0() -> None:
    tree = Tree.from_edges(4, 2, [(2, 3), (2, 0), (0, 1)])
    indices = [0, 1, 4, 5]  # the GPUs at the places of the tree
    order = root_first(tree, indices)
    assert order == [4, 5, 0, 1]
    deal = deal_gpus(order, 4)
    assert deal.gpu_of_rank == (4, 5, 0, 1)
    assert (deal.idle, deal.shared) == ((), ())
    ranks = tree_of_ranks(tree, indices, deal)
    assert ranks.root == 0
    assert sorted(ranks.edges()) == [(0, 1), (0, 2), (2, 3)]


def test_fewer_ranks_than_gpus() -> None:
    assert deal_gpus([3, 1, 0], 2).gpu_of_rank == (3, 1)
    assert deal_gpus([3, 1, 0], 2).idle == (0,)
    assert deal_gpus([3, 1, 0], 0).idle == (3, 1, 0)


def test_more_ranks_than_gpus() -> None:
    deal = deal_gpus([3, 1], 5)
    assert deal.gpu_of_rank == (3, 1, 3, 1, 3)
    assert (deal.idle, deal.shared) == ((), (1, 3))


def test_nothing_to_deal() -> None:
    assert deal_gpus([], 0).gpu_of_rank == ()
    with pytest.raises(DeviceError, match="2 ranks and no GPU; use --cpu"):
        deal_gpus([], 2)
    with pytest.raises(DeviceError, match="expected each GPU once, found"):
        deal_gpus([1, 1], 2)


def test_a_tree_of_other_gpus() -> None:
    with pytest.raises(DeviceError, match=r"joins the GPUs \[0, 1\], but the ranks drive \[0, 2\]"):
        tree_of_ranks(Tree.from_edges(2, 0, [(0, 1)]), [0, 1], deal_gpus([0, 2], 2))


@given(st.data())
def test_ranks_take_the_places_of_their_gpus(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    members = data.draw(st.permutations(range(size)))
    edges = [(members[data.draw(st.integers(0, place - 1))], members[place]) for place in range(1, size)]
    tree = Tree.from_edges(size, members[0], edges)
    indices = data.draw(st.permutations(range(size)))
    deal = deal_gpus(root_first(tree, indices), size)
    ranks = tree_of_ranks(tree, indices, deal)
    assert ranks.root == 0
    assert deal.gpu_of_rank[0] == indices[tree.root]
    for parent, child in ranks.edges():
        places = [indices.index(deal.gpu_of_rank[rank]) for rank in (parent, child)]
        assert tree.parent[places[1]] == places[0]
    for rank in range(size):
        place = indices.index(deal.gpu_of_rank[rank])
        assert [deal.gpu_of_rank[r] for r in ranks.children[rank]] == [indices[c] for c in tree.children[place]]
