"""Sharded over so many roots as asked, on one node, by messages, and over several nodes: sums, parts, and clear errors."""

from __future__ import annotations

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.choose import check_roots
from paratrain.comm.communicator import Array
from paratrain.comm.exchange import Part
from paratrain.comm.threads import run_threads
from paratrain.errors import CommunicationError
from tests.unit.comm.exchanges import counts_for, make_exchange, run_step
from tests.unit.comm.test_exchanges import check, noise

ONE_NODE = [
    (kind, size, roots)
    for kind in ("sharded", "shared sharded")
    for size in (1, 2, 3, 5)
    for roots in range(1, size + 1)
]
NODES = [[0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [0, 1, 0, 1, 0, 1]]


def most(nodes: list[int]) -> int:
    return len(set(nodes)) * min(nodes.count(node) for node in nodes)


def run_ranks(kind: str, roots: int, nodes: list[int]) -> list[list[Array]]:
    """For every rank, the parameters after each of two steps, for every length."""

    def rank(communicator: Communicator) -> list[Array]:
        found = []
        for count in counts_for(communicator.size):
            exchange = make_exchange(kind, communicator, count, step=700, roots=roots)
            found += [run_step(exchange, noise(communicator.rank, count, step)) for step in range(2)]
        return found

    return run_threads(len(nodes), rank, nodes)


@pytest.mark.parametrize(("kind", "size", "roots"), ONE_NODE)
def test_the_sum_arrives_everywhere(kind: str, size: int, roots: int) -> None:
    results = run_ranks(kind, roots, [0] * size)
    check(results, size)
    # A part is added in the order of the ranks, whoever owns it: the same bits with any number of roots.
    for one, other in zip(results[0], run_ranks("shared sharded", size, [0] * size)[0], strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(("nodes", "roots"), [(nodes, roots) for nodes in NODES for roots in range(1, most(nodes) + 1)])
def test_the_sum_arrives_on_several_nodes(nodes: list[int], roots: int) -> None:
    check(run_ranks("two levels, sharded", roots, nodes), len(nodes))


def test_closed_form_of_a_large_array() -> None:
    """3,000,001 elements: whole numbers, so that the sum is exact whatever the order."""
    count = 3_000_001
    pattern = (np.arange(count) % 1000).astype(np.float32)

    def rank(communicator: Communicator) -> None:
        for roots in (1, 3):
            for kind in ("sharded", "shared sharded"):
                exchange = make_exchange(kind, communicator, count, step=256 * 1024, roots=roots)
                assert np.array_equal(run_step(exchange, (communicator.rank + 1) * pattern), 2.5 * pattern), kind

    run_threads(4, rank)


@pytest.mark.parametrize("kind", ["sharded", "shared sharded", "two levels, sharded"])
@pytest.mark.parametrize("roots", [1, 2, 3, 4])
def test_roots_own_equal_parts_that_cover_all(kind: str, roots: int) -> None:
    nodes = [0, 0, 1, 1] if kind.startswith("two") else [0] * 4

    def rank(communicator: Communicator) -> list[Part]:
        exchange = make_exchange(kind, communicator, 10_000, step=4000, roots=roots)
        return [exchange.owned(index) for index in range(len(exchange.slices))]

    owned = run_threads(4, rank, nodes)
    covered = np.zeros(10_000, int)
    for parts in owned:
        for start, stop in parts:
            covered[start:stop] += 1
    assert np.all(covered == 1)
    sizes = [sum(stop - start for start, stop in parts) for parts in owned]
    # Over nodes: first ranks of all nodes before second ones, so that two roots are on two nodes.
    order = [0, 2, 1, 3] if kind.startswith("two") else [0, 1, 2, 3]
    assert all(abs(sizes[rank] - 10_000 / roots) <= 3 * 32 for rank in order[:roots])
    assert all(sizes[rank] == 0 for rank in order[roots:])


@pytest.mark.parametrize(
    ("name", "roots", "nodes", "message"),
    [
        ("sharded", 4, [0, 0, 0], "--roots 4: expected 1 to 3, the number of ranks"),
        ("sharded", 0, [0, 0, 0], "--roots 0: expected 1 to 3, the number of ranks"),
        ("tree", 2, [0, 0, 0], "the exchange is 'tree': give both, or leave --roots out"),
        ("auto", 1, [0, 0, 0], "the exchange is 'auto': give both, or leave --roots out"),
        (
            "sharded",
            3,
            [0, 0, 1],
            "--roots 3: expected at most 2, since one of the 2 nodes has only 1 of the 3 ranks",
        ),
    ],
)
def test_what_cannot_be(name: str, roots: int, nodes: list[int], message: str) -> None:
    def rank(communicator: Communicator) -> None:
        with pytest.raises(CommunicationError) as caught:
            check_roots(name, roots, communicator)
        assert message in str(caught.value)
        check_roots(name, None, communicator)

    run_threads(len(nodes), rank, nodes)


def test_by_messages_any_rank_of_uneven_nodes_can_be_a_root() -> None:
    run_threads(3, lambda ranks: check_roots("sharded", 3, ranks, shares_memory=False), [0, 0, 1])
    run_threads(3, lambda ranks: check_roots("sharded", 3, ranks), [0, 1, 2])
