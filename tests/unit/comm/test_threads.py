from __future__ import annotations

import time

import numpy as np
import pytest

from paratrain.comm import Communicator, LocalCommunicator
from paratrain.comm.threads import run_threads
from paratrain.errors import CommunicationError


def test_messages_arrive_in_the_order_in_which_they_were_sent() -> None:
    def ring(communicator: Communicator) -> list[float]:
        left, right = (communicator.rank - 1) % communicator.size, (communicator.rank + 1) % communicator.size
        arrays = [np.full(3, 10.0 * communicator.rank + i) for i in range(5)]
        sends = [communicator.isend(array, right) for array in arrays]
        buffers = [np.empty(3) for _ in range(5)]
        receives = [communicator.ireceive(buffer, left) for buffer in buffers]
        for request in reversed(receives):  # waiting in another order changes nothing
            request.wait()
        for request in sends:
            request.wait()
        return [float(buffer[0]) for buffer in buffers]

    for rank, values in enumerate(run_threads(4, ring)):
        assert values == [10.0 * ((rank - 1) % 4) + i for i in range(5)]


def test_objects_go_round() -> None:
    def talk(communicator: Communicator) -> tuple[object, object, object]:
        name = {"rank": communicator.rank}
        told = communicator.broadcast_object(name if communicator.rank == 1 else None, root=1)
        communicator.barrier()
        return told, communicator.gather_objects(name, root=2), communicator.allgather_objects(name)

    names = [{"rank": rank} for rank in range(4)]
    for rank, (told, gathered, all_names) in enumerate(run_threads(4, talk)):
        assert told == {"rank": 1}
        assert gathered == (names if rank == 2 else None)
        assert all_names == names


def test_a_barrier_waits_for_the_last_rank() -> None:
    arrived = []

    def meet(communicator: Communicator) -> int:
        time.sleep(0.02 * communicator.rank)
        arrived.append(communicator.rank)
        communicator.barrier()
        return len(arrived)

    assert run_threads(5, meet) == [5] * 5


def test_local_numbers_follow_the_nodes() -> None:
    def place(communicator: Communicator) -> tuple[int, int]:
        return communicator.local_rank, communicator.local_size

    places = run_threads(5, place, node_of_rank=[0, 1, 0, 1, 0])
    assert places == [(0, 3), (0, 2), (1, 3), (1, 2), (2, 3)]


def test_a_rank_that_raises_wakes_the_others() -> None:
    messages = {}

    def fail(communicator: Communicator) -> None:
        if communicator.rank == 2:
            raise ValueError("the disk is full")
        with pytest.raises(CommunicationError) as caught:
            communicator.receive(np.empty(1), (communicator.rank + 1) % 4)
        messages[communicator.rank] = str(caught.value)
        raise caught.value

    with pytest.raises(ValueError, match="the disk is full"):
        run_threads(4, fail)
    assert messages == {rank: f"rank {rank} of 4: rank 2 ended with ValueError: the disk is full" for rank in (0, 1, 3)}


def test_waiting_for_a_rank_that_has_ended_is_an_error() -> None:
    def leave(communicator: Communicator) -> None:
        if communicator.rank == 0:
            communicator.send(np.zeros(1), 1)

    with pytest.raises(CommunicationError, match="rank 0 of 2: waits for a message to or from rank 1, which has ended"):
        run_threads(2, leave)


@pytest.mark.parametrize("peer", [-1, 1, 3])
def test_a_rank_that_is_not_there(peer: int) -> None:
    def send(communicator: Communicator) -> None:
        if communicator.rank == 1:
            communicator.send(np.zeros(1), peer)

    with pytest.raises(
        CommunicationError, match=rf"rank 1 of 3: .* rank {peer}, expected one of the other ranks 0\.\.2"
    ):
        run_threads(3, send)


def test_one_rank_alone() -> None:
    communicator = LocalCommunicator()
    assert (communicator.rank, communicator.size, communicator.local_rank, communicator.local_size) == (0, 1, 0, 1)
    assert communicator.node_of_rank == (0,)
    assert communicator.broadcast_object("x") == "x"
    assert communicator.gather_objects(3) == [3]
    assert communicator.allgather_objects(3) == [3]
    communicator.barrier()
    with pytest.raises(CommunicationError, match="asked to send to rank 1, but it is the only rank"):
        communicator.send(np.zeros(1), 1)
    with pytest.raises(CommunicationError, match="asked to receive from rank 0, but it is the only rank"):
        communicator.receive(np.zeros(1), 0)
    with pytest.raises(SystemExit) as leaving:
        communicator.abort(3)
    assert leaving.value.code == 3
    communicator.close()
    communicator.close()
