"""Every exchange with 1 to 16 ranks: the sum in closed form, the same bits on all ranks and in two runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.communicator import Array
from paratrain.comm.exchange import cut
from paratrain.comm.progress import Progress, Work
from paratrain.comm.threads import run_threads
from paratrain.errors import CommunicationError
from tests.unit.comm.exchanges import MESSAGES, SHARED, TWO_LEVELS, counts_for, make_exchange, run_step

SIZES = [*range(1, 10), 13, 16]
NODES = [[0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1], [0, 1, 2, 0, 1, 2], [0, 1, 2, 3]]


def noise(rank: int, count: int, step: int) -> Array:
    """Values of very different magnitudes, so that the order of addition shows in the last bits."""
    random = np.random.default_rng([rank, count, step])
    return (random.standard_normal(count) * 10.0 ** random.integers(-4, 5, count)).astype(np.float32)


def run_ranks(kind: str, size: int, nodes: list[int] | None = None) -> list[list[Array]]:
    """For every rank, the parameters after each of two steps, for every length."""

    def rank(communicator: Communicator) -> list[Array]:
        found = []
        for count in counts_for(size):
            exchange = make_exchange(kind, communicator, count, step=700)
            found += [run_step(exchange, noise(communicator.rank, count, step)) for step in range(2)]
        return found

    return run_threads(size, rank, nodes)


def check(results: list[list[Array]], size: int) -> None:
    index = 0
    for count in counts_for(size):
        expected, scale = np.zeros(count), np.zeros(count)
        for step in range(2):
            values = [noise(rank, count, step).astype(np.float64) for rank in range(size)]
            expected += sum(values) / size
            scale += sum(np.abs(value) for value in values)
            for result in results:
                assert np.array_equal(result[index], results[0][index]), "the same bits on all ranks"
            assert np.all(np.abs(results[0][index] - expected) <= 1e-6 * scale)
            index += 1


@pytest.mark.parametrize("kind", [*MESSAGES, *SHARED])
@pytest.mark.parametrize("size", SIZES)
def test_the_sum_arrives_everywhere(kind: str, size: int) -> None:
    results = run_ranks(kind, size)
    check(results, size)
    again = run_ranks(kind, size)
    assert all(np.array_equal(one, other) for one, other in zip(results[0], again[0], strict=True))


@pytest.mark.parametrize("kind", TWO_LEVELS)
@pytest.mark.parametrize("nodes", NODES)
def test_two_levels(kind: str, nodes: list[int]) -> None:
    check(run_ranks(kind, len(nodes), nodes), len(nodes))


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_messages_and_shared_memory_give_the_same_bits(size: int) -> None:
    for one, other in (("tree", "shared tree"), ("sharded", "shared sharded")):
        for a, b in zip(run_ranks(one, size)[0], run_ranks(other, size)[0], strict=True):
            assert np.array_equal(a, b)


def test_closed_form_of_a_large_array() -> None:
    """3,000,001 elements: whole numbers, so that the sum is exact whatever the order."""
    count = 3_000_001
    pattern = (np.arange(count) % 1000).astype(np.float32)

    def rank(communicator: Communicator) -> None:
        for kind in (*MESSAGES, *SHARED):
            exchange = make_exchange(kind, communicator, count, step=256 * 1024)
            result = run_step(exchange, (communicator.rank + 1) * pattern)
            assert np.array_equal(result, 2.5 * pattern), kind

    run_threads(4, rank)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_cut_gives_neighbours_that_cover_the_part(length: int, count: int) -> None:
    pieces = [cut((5, 5 + length), count, index) for index in range(count)]
    assert pieces[0][0] == 5
    assert pieces[-1][1] == 5 + length
    assert all(one[1] == following[0] for one, following in itertools.pairwise(pieces))
    sizes = [stop - start for start, stop in pieces]
    assert max(sizes) - min(sizes) <= 32


def test_a_rank_that_fails_ends_the_others() -> None:
    def rank(communicator: Communicator) -> None:
        exchange = make_exchange("shared sharded", communicator, 1000, step=100)
        if communicator.rank == 1:
            raise ZeroDivisionError("a bug on one rank")
        with pytest.raises(CommunicationError, match="rank 1 ended with ZeroDivisionError"):
            run_step(exchange, np.ones(1000, np.float32))

    with pytest.raises(ZeroDivisionError):
        run_threads(3, rank)


def test_jobs_begin_in_order_and_no_more_than_the_limit() -> None:
    log: list[str] = []
    may_end = [False] * 4

    def job(number: int) -> Work:
        log.append(f"begin {number}")
        yield lambda: may_end[number]
        log.append(f"end {number}")

    def rank(communicator: Communicator) -> None:
        progress = Progress(communicator, limit=2)
        for number in range(4):
            progress.add(job(number))
        assert not progress.poll()
        assert log == ["begin 0", "begin 1"]
        may_end[1] = True
        assert not progress.poll()
        assert log[2:] == ["end 1", "begin 2"]
        may_end[:] = [True] * 4
        progress.finish("a test")
        assert log[-1] == "end 3"
        assert progress.poll()

    run_threads(1, rank)
