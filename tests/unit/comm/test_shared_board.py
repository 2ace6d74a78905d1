"""Small arrays through memory that the ranks of a node share."""

from __future__ import annotations

import time

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.shared_board import SharedBoard
from paratrain.comm.threads import run_threads
from paratrain.errors import CommunicationError


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("slow", [None, 0, 1])
def test_sums_and_broadcasts_whoever_is_slow(size: int, slow: int | None) -> None:
    root = size - 1

    def rank(communicator: Communicator) -> None:
        board = SharedBoard.create(communicator, root)
        assert board is not None
        for step in range(12):
            if communicator.rank == slow:
                time.sleep(0.002)
            summed = np.array([communicator.rank + step, 1.0, 0.1 * communicator.rank])
            board.reduce(summed)
            if communicator.rank == root:
                tenths = [0.1 * r for r in range(size)]
                assert summed.tolist() == [sum(range(size)) + size * step, size, sum(tenths)]
            if step % 3 == 0:  # several sums may follow each other, and several broadcasts
                for repeat in range(3):
                    told = np.full(7, step + repeat if communicator.rank == root else -1, np.float32)
                    board.broadcast(told)
                    assert (told == step + repeat).all()

    run_threads(size, rank)


def test_ranks_of_several_nodes_have_none() -> None:
    def rank(communicator: Communicator) -> None:
        assert SharedBoard.create(communicator, 0) is None

    run_threads(3, rank, node_of_rank=[0, 0, 1])


def test_a_rank_that_has_left_is_not_waited_for() -> None:
    def rank(communicator: Communicator) -> None:
        board = SharedBoard.create(communicator, 0)
        assert board is not None
        if communicator.rank == 1:
            return
        with pytest.raises(CommunicationError):
            board.reduce(np.zeros(1))

    run_threads(2, rank)
