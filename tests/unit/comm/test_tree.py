from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from paratrain.comm import Communicator, LocalCommunicator, TreeExchange
from paratrain.comm.communicator import Array, Request
from paratrain.comm.exchange import FlatArrays
from paratrain.comm.message_tree import MessageTree
from paratrain.comm.progress import Progress
from paratrain.comm.threads import run_threads
from paratrain.errors import CommunicationError
from paratrain.topology.costs.schedules import broadcast_tasks
from paratrain.topology.planner import binomial
from paratrain.topology.tree import Tree, chain, star

SIZES = [*range(1, 10), 13, 16]
TREES = [binomial, chain, star]


def element_counts(size: int) -> list[int]:
    return sorted({0, 1, size - 1, size, size + 1, 1000})


def rank_values(rank: int, count: int, dtype: str) -> Array:
    """Values of very different magnitudes, so that the order of addition shows in the last bits."""
    random = np.random.default_rng([rank, count])
    return (random.standard_normal(count) * 10.0 ** random.integers(-4, 5, count)).astype(dtype)


def sum_in_tree_order(tree: Tree, values: list[Array], rank: int) -> Array:
    """The definition: a rank's own values, plus the sum of its first child's subtree, plus the second's ..."""
    total = values[rank]
    for child in tree.children[rank]:
        total = total + sum_in_tree_order(tree, values, child)
    return total


@pytest.mark.parametrize("make_tree", TREES)
@pytest.mark.parametrize("size", SIZES)
def test_reduce_adds_in_the_order_of_the_tree(size: int, make_tree: Callable[[int], Tree]) -> None:
    tree = make_tree(size)

    def exchange(communicator: Communicator) -> list[Array]:
        small = TreeExchange(communicator, tree, elements_per_chunk=64)
        arrays = []
        for count in element_counts(size):
            for dtype in ("f4", "f8"):
                array = rank_values(communicator.rank, count, dtype)
                small.reduce(array)
                arrays.append(array)
        return arrays

    results = run_threads(size, exchange)
    expected = []
    for count in element_counts(size):
        for dtype in ("f4", "f8"):
            expected.append([rank_values(rank, count, dtype) for rank in range(size)])
    for index, values in enumerate(expected):
        for rank in range(size):  # the root's sum, and the documented partial sums elsewhere
            assert results[rank][index].dtype == values[0].dtype
            assert np.array_equal(results[rank][index], sum_in_tree_order(tree, values, rank))


def test_the_order_of_addition_shows_in_the_bits() -> None:
    """The test above can fail: a star that adds its children backwards gives other bits."""
    forwards = star(8)
    backwards = Tree.from_edges(8, 0, [(0, child) for child in range(7, 0, -1)])
    values = [rank_values(rank, 1000, "f4") for rank in range(8)]
    results = [
        run_threads(8, lambda communicator, tree=tree: reduced(communicator, tree, values))[0]
        for tree in (forwards, backwards)
    ]
    assert np.array_equal(results[0], sum_in_tree_order(forwards, values, 0))
    assert np.array_equal(results[1], sum_in_tree_order(backwards, values, 0))
    assert not np.array_equal(results[0], results[1])


def reduced(communicator: Communicator, tree: Tree, values: list[Array]) -> Array:
    array = values[communicator.rank].copy()
    TreeExchange(communicator, tree, elements_per_chunk=100).reduce(array)
    return array


@pytest.mark.parametrize("make_tree", TREES)
@pytest.mark.parametrize("size", SIZES)
def test_closed_form_sum_and_equal_bytes_on_all_ranks_and_runs(size: int, make_tree: Callable[[int], Tree]) -> None:
    """Rank r holds (r+1) * [0, 1, 2 ...]; the sum is size (size+1) / 2 times that, exactly, in several chunks."""
    tree = make_tree(size)
    count = 300_001

    def exchange(communicator: Communicator) -> bytes:
        pattern = np.arange(count, dtype=np.float32) % 1000
        array = (communicator.rank + 1) * pattern
        tree_exchange = TreeExchange(communicator, tree)
        tree_exchange.reduce(array)
        tree_exchange.broadcast(array)
        assert np.array_equal(array, size * (size + 1) // 2 * pattern)
        noise = rank_values(communicator.rank, 1000, "f4")
        tree_exchange.reduce(noise)
        tree_exchange.broadcast(noise)
        return noise.tobytes()

    first, second = run_threads(size, exchange), run_threads(size, exchange)
    assert len({*first, *second}) == 1


@pytest.mark.parametrize("elements_per_chunk", [1, 2, 3, 999, 1000, 1001])
def test_chunks_do_not_change_the_bits(elements_per_chunk: int) -> None:
    tree = binomial(6)
    values = [rank_values(rank, 1000, "f4") for rank in range(6)]

    def exchange(communicator: Communicator) -> Array:
        array = values[communicator.rank].copy()
        TreeExchange(communicator, tree, elements_per_chunk).reduce(array)
        return array

    assert np.array_equal(run_threads(6, exchange)[0], sum_in_tree_order(tree, values, 0))


def test_another_root_and_arrays_of_any_shape() -> None:
    tree = Tree.from_edges(4, 2, [(2, 3), (2, 0), (0, 1)])

    def exchange(communicator: Communicator) -> tuple[Array, Array, int]:
        tree_exchange = TreeExchange(communicator, tree, elements_per_chunk=5)
        array = np.full((2, 3, 4), 10.0**communicator.rank)
        tree_exchange.reduce(array)
        down = np.full((3, 7), float(communicator.rank))
        tree_exchange.broadcast(down)
        return array, down, tree_exchange.root

    results = run_threads(4, exchange)
    assert np.all(results[2][0] == 1111)
    assert all(np.all(down == 2) and root == 2 for _, down, root in results)


def test_mean_scalars_is_the_average_at_the_root_alone() -> None:
    def exchange(communicator: Communicator) -> list[float]:
        return TreeExchange(communicator, binomial(5)).mean_scalars([communicator.rank, 0.1, 1e12])

    results = run_threads(5, exchange)
    assert results[0] == pytest.approx([2.0, 0.1, 1e12], rel=1e-15)
    assert results[3] == [3.0, 0.1, 1e12]


def test_one_rank_keeps_its_array_and_sends_nothing() -> None:
    exchange = TreeExchange(LocalCommunicator(), chain(1))
    array = np.arange(10.0)
    exchange.reduce(array)
    exchange.broadcast(array)
    assert np.array_equal(array, np.arange(10.0))
    assert exchange.mean_scalars([3.5]) == [3.5]
    assert exchange.mean_scalars([]) == []


def test_receive_buffers_are_two_chunks_and_are_allocated_once() -> None:
    """Whatever the array's size, a parent receives into the same two chunks."""
    addresses: set[int] = set()

    class Watched(LocalCommunicator):
        """Rank 0 of 2 whose child is a list of messages."""

        @property
        def size(self) -> int:
            return 2

        def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
            addresses.add(array.__array_interface__["data"][0])
            assert array.size <= 16
            array[:] = 1
            return Done()

    class Done(Request):
        def wait(self) -> None:
            pass

        def test(self) -> bool:
            return True

    exchange = TreeExchange(Watched(), chain(2), elements_per_chunk=16)
    for count in (1000, 100, 33):
        array = np.zeros(count, np.float32)
        exchange.reduce(array)
        assert np.all(array == 1)
    assert len(addresses) == 2


@pytest.mark.parametrize("tree", [binomial(8), star(5), Tree.from_edges(5, 0, [(0, 1), (0, 2), (2, 3), (2, 4)])])
def test_messages_go_down_in_the_order_that_was_planned_for(tree: Tree) -> None:
    """Both the small messages of a step and the parameters; a parent sends first to the child that it adds last."""
    planned: dict[int, list[int]] = {}
    for task in broadcast_tasks([tree], 4.0):
        planned.setdefault(task.source, []).append(task.target)

    def exchange(communicator: Communicator) -> tuple[list[int], list[int]]:
        sent: list[int] = []
        isend = communicator.isend

        def watched(array: Array, destination: int, tag: int = 0) -> Request:
            sent.append(destination)
            return isend(array, destination, tag)

        communicator.isend = watched  # type: ignore[method-assign]
        TreeExchange(communicator, tree).broadcast(np.ones(4))
        small, sent = sent, []
        arrays = FlatArrays(np.ones(4, np.float32), np.ones(4, np.float32))
        progress = Progress(communicator, 1)
        progress.add(MessageTree(communicator, arrays, [(0, 4)], tree=tree).spread(0))
        progress.finish("spreading")
        return small, sent

    for rank, (small, parameters) in enumerate(run_threads(tree.size, exchange)):
        assert small == parameters == planned.get(rank, [])


def test_a_tree_of_another_size_is_refused() -> None:
    with pytest.raises(CommunicationError, match=r"rank 0 of 1: the tree joins 3 ranks; make a tree of 1"):
        TreeExchange(LocalCommunicator(), chain(3))


def test_arrays_of_different_sizes_are_an_error_on_both_ranks() -> None:
    def exchange(communicator: Communicator) -> str:
        with pytest.raises(CommunicationError) as caught:
            TreeExchange(communicator, chain(2)).reduce(np.zeros(10 + communicator.rank))
        return str(caught.value)

    for message in run_threads(2, exchange):
        assert "rank 0 expected 10 elements of float64 from rank 1, which sent 11 of float64" in message
