"""The tree over several nodes: any tree, any places, the bits of the tree that is made of messages alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.comm import Communicator
from paratrain.comm.choose import create_exchange, uses_shared_memory
from paratrain.comm.communicator import Array, Request
from paratrain.comm.memory import ExchangeMemory
from paratrain.comm.shared_tree import SharedTree
from paratrain.comm.threads import ThreadCommunicator, run_threads
from paratrain.topology.planner import binomial, plan_ranks
from paratrain.topology.tree import Tree, chain, star
from tests.unit.comm.exchanges import make_exchange, run_step, slices_of
from tests.unit.comm.test_exchanges import noise

COUNT, STEP = 700, 150


def steps(kind: str, tree: Tree, nodes: list[int], sent: str = "float32") -> list[list[Array]]:
    """For every rank, the parameters after each of two steps."""

    def rank(communicator: Communicator) -> list[Array]:
        exchange = make_exchange(kind, communicator, COUNT, STEP, sent=sent, tree=tree)
        return [run_step(exchange, noise(communicator.rank, COUNT, step)) for step in range(2)]

    return run_threads(len(nodes), rank, nodes)


@st.composite
def trees_and_places(draw: st.DrawFn) -> tuple[Tree, list[int]]:
    """Trees that may leave a node and come back to it, with children in any order, and any rank as the root."""
    size = draw(st.integers(1, 7))
    order = draw(st.permutations(range(size)))
    edges = [(order[draw(st.integers(0, place - 1))], order[place]) for place in range(1, size)]
    nodes = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    numbers = {node: number for number, node in enumerate(dict.fromkeys(nodes))}
    return Tree.from_edges(size, order[0], edges), [numbers[node] for node in nodes]


@settings(max_examples=40, deadline=None)
@given(trees_and_places())
def test_any_tree_gives_the_bits_of_its_messages(given_: tuple[Tree, list[int]]) -> None:
    tree, nodes = given_
    expected = steps("tree", tree, nodes)[0]
    for found in steps("tree over nodes", tree, nodes):
        assert all(one.tobytes() == other.tobytes() for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("sent", ["float16", "bfloat16"])
def test_16_bits_round_only_between_nodes(sent: str) -> None:
    """What is rounded is each node's sum: the bits of messages between one rank a node that has this sum already."""
    nodes = [0, 0, 1, 1, 1]
    found = steps("tree over nodes", plan_ranks(nodes), nodes, sent)
    assert len({one[1].tobytes() for one in found}) == 1
    sums = [noise(0, COUNT, 0) + noise(1, COUNT, 0), noise(2, COUNT, 0) + noise(3, COUNT, 0) + noise(4, COUNT, 0)]
    with np.errstate(over="ignore"):
        rounded = sums[1].astype(sent if sent == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
    expected = (sums[0] + rounded.astype(np.float32)) * np.float32(1 / 5)
    assert found[0][0].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("tree", "nodes", "down", "up"),
    [
        (plan_ranks([0, 0, 1, 1]), [0, 0, 1, 1], {(0, 1): 1}, {(1, 0): 1}),
        (plan_ranks([0, 0, 0, 1, 1, 2, 2]), [0, 0, 0, 1, 1, 2, 2], {(0, 1): 1, (0, 2): 1}, {(1, 0): 1, (2, 0): 1}),
        (star(4), [0, 0, 1, 1], {(0, 1): 1}, {(1, 0): 2}),
        (chain(4), [0, 1, 0, 1], {(0, 1): 1}, {(1, 0): 2, (0, 1): 1}),
        (binomial(4), [0, 0, 0, 0], {}, {}),
    ],
)
def test_bytes_between_nodes(
    tree: Tree, nodes: list[int], down: dict[object, int], up: dict[object, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that enters each node once sends everything once each way; within a node nothing is sent."""
    sent: Counter[tuple[int, int]] = Counter()
    isend = ThreadCommunicator.isend

    def count(self: ThreadCommunicator, array: Array, destination: int, tag: int = 0) -> Request:
        if tag:  # not what makes the shared memory
            with self._group.changed:
                sent[nodes[self.rank], nodes[destination]] += array.nbytes
        return isend(self, array, destination, tag)

    monkeypatch.setattr(ThreadCommunicator, "isend", count)
    steps("tree over nodes", tree, nodes)
    total = Counter(down) + Counter(up)
    assert sent == {way: 2 * 4 * COUNT * times for way, times in total.items()}


def test_which_tree_is_made() -> None:
    def main(communicator: Communicator) -> type:
        memory = ExchangeMemory(communicator, is_shared=uses_shared_memory("tree", communicator))
        memory.diff(COUNT, np.float32)
        memory.data(COUNT, np.float32)
        tree = plan_ranks(communicator.node_of_rank)
        return type(create_exchange("tree", communicator, memory, slices_of(COUNT, STEP), tree))

    assert set(run_threads(3, main)) == {SharedTree}
    assert set(run_threads(3, main, [0, 1, 1])) == {SharedTree}
    assert SharedTree not in run_threads(3, main, [0, 1, 2])
