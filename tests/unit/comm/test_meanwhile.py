"""A rank that waits for the others' answers goes on with its own jobs, which they may need before they can answer."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.exchange import Part
from paratrain.comm.progress import Progress, Work
from paratrain.comm.shared_board import SharedBoard
from paratrain.comm.threads import run_threads
from tests.unit.comm.exchanges import make_exchange

LIMIT_S = 20.0


def by_message(communicator: Communicator) -> Callable[[], object]:
    return communicator.barrier


def by_board(communicator: Communicator) -> Callable[[], object]:
    board = SharedBoard.create(communicator, 0)
    assert board is not None
    return lambda: board.reduce(np.zeros(1))


@pytest.mark.parametrize("way", [by_message, by_board])
def test_a_job_goes_on_while_its_rank_waits(way: Callable[[Communicator], Callable[[], object]]) -> None:
    ready, asked, answered = threading.Event(), threading.Event(), threading.Event()

    def job() -> Work:
        yield asked.is_set
        answered.set()

    def rank(communicator: Communicator) -> None:
        meet = way(communicator)
        if communicator.rank == 0:
            progress = Progress(communicator, limit=1)
            progress.add(job())
            assert not progress.poll()
            communicator.meanwhile = progress.poll
            ready.set()
        else:
            assert ready.wait(LIMIT_S)
            asked.set()
            assert answered.wait(LIMIT_S)
        meet()

    run_threads(2, rank)


def test_ranks_that_have_updated_help_those_that_have_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 has no place for its last slice before rank 1 has passed on the others, of which rank 3 sends its half last.

    The last slice is so short that ranks 1 and 3 own nothing of it: rank 1 is done with updating without having heard of it.
    """
    slices: list[Part] = [(start, start + 160) for start in range(8 * 160, 0, -160)]
    slices = [(start - 152, stop - 152) for start, stop in slices] + [(0, 8)]
    monkeypatch.setattr("tests.unit.comm.exchanges.slices_of", lambda *_: slices)
    is_waiting = threading.Event()

    def rank(communicator: Communicator) -> None:
        exchange = make_exchange("two levels, sharded", communicator, slices[0][1], 160)
        exchange.arrays.diff[...] = communicator.rank
        permit = threading.Event()
        is_allowed, updated = permit.is_set, [0]
        progress = Progress(communicator, exchange.most_slices, uncounted=is_allowed)

        def work(index: int) -> Work:
            yield from exchange.sum(index)
            summed.add(index)
            yield is_allowed
            start, stop = exchange.owned(index)
            exchange.arrays.data[start:stop] += exchange.arrays.diff[start:stop]
            updated[0] += 1
            yield from exchange.spread(index)

        summed: set[int] = set()
        for index in range(len(slices)):
            progress.add(work(index))
        if communicator.rank % 2:  # still in backward, while the sums are made
            progress.finish("sums", lambda: len(summed) == len(slices))
        if communicator.rank == 3:
            progress.finish("waiting", is_waiting.is_set)
        permit.set()
        progress.finish("updates", lambda: updated[0] == len(slices))
        communicator.meanwhile = progress.poll
        if communicator.rank == 1:
            is_waiting.set()
        communicator.barrier()
        progress.finish("the rest")
        communicator.meanwhile = None
        assert np.all(exchange.arrays.data == 1.5)

    run_threads(4, rank, [0, 0, 1, 1])
