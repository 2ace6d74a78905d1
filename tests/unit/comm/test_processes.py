"""Processes that find each other by sockets; here threads play them, which the sockets do not notice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from paratrain.comm.processes import ProcessCommunicator, join_processes, make_meeting_place
from paratrain.errors import CommunicationError

T = TypeVar("T")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A place to meet. The folder of the tests has too long a name for a socket, so that this is elsewhere."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = make_meeting_place()
    assert len(folder) < 80
    assert not list(long.iterdir())
    yield folder
    assert not list(Path(folder).iterdir())
    Path(folder).rmdir()


def as_ranks(place: str, size: int, function: Callable[[ProcessCommunicator], T]) -> list[T]:
    results: dict[int, T] = {}

    def run(rank: int) -> None:
        communicator = join_processes(place, rank, size, timeout_s=20)
        try:
            results[rank] = function(communicator)
        finally:
            communicator.close()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in reversed(threads):  # in any order
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(size)]


def test_messages_arrive_by_source_and_tag(place: str) -> None:
    def exchange(communicator: ProcessCommunicator) -> list[list[float]]:
        rank, size = communicator.rank, communicator.size
        for tag in (2, 1):
            for peer in range(size):
                if peer != rank:
                    communicator.isend(np.array([rank, tag, 0.5]), peer, tag)
        received = []
        for tag in (1, 2):
            for peer in range(size):
                if peer != rank:
                    array = np.zeros(3)
                    communicator.ireceive(array, peer, tag).wait()
                    received.append(array.tolist())
        return received

    for rank, received in enumerate(as_ranks(place, 3, exchange)):
        assert received == [[peer, tag, 0.5] for tag in (1, 2) for peer in range(3) if peer != rank]


def test_large_messages_both_ways_at_once(place: str) -> None:
    def exchange(communicator: ProcessCommunicator) -> float:
        peer, array = 1 - communicator.rank, np.zeros(2_000_000, np.float32)
        request = communicator.ireceive(array, peer)
        communicator.send(np.full(2_000_000, communicator.rank + 1, np.float32), peer)
        request.wait()
        assert request.test()
        return float(array.mean())

    assert as_ranks(place, 2, exchange) == [2, 1]


def test_objects_and_places(place: str) -> None:
    def exchange(communicator: ProcessCommunicator) -> object:
        communicator.barrier()
        assert communicator.node_of_rank == (0, 0, 0)
        assert (communicator.local_rank, communicator.local_size) == (communicator.rank, 3)
        communicator.check_all_present("looking")
        found = communicator.allgather_objects({"rank": communicator.rank})
        communicator.barrier()
        return found

    assert as_ranks(place, 3, exchange) == [[{"rank": rank} for rank in range(3)]] * 3


def test_who_has_ended_is_missed(place: str) -> None:
    def exchange(communicator: ProcessCommunicator) -> str:
        array = np.zeros(1)
        if communicator.rank == 1:
            communicator.send(array, 0)
            return ""
        communicator.receive(array, 1)  # what was sent before still arrives
        with pytest.raises(CommunicationError, match="rank 0 of 2: waits for a message from rank 1, which has ended"):
            communicator.receive(array, 1)
        with pytest.raises(CommunicationError, match="rank 0 of 2: adding: rank 1 has ended"):
            communicator.check_all_present("adding")
        return "missed"

    assert as_ranks(place, 2, exchange)[0] == "missed"


def test_a_message_of_another_size(place: str) -> None:
    def exchange(communicator: ProcessCommunicator) -> None:
        if communicator.rank == 1:
            communicator.send(np.zeros(3), 0)
        else:
            with pytest.raises(CommunicationError, match="rank 0 of 2: expected 16 bytes from rank 1, which sent 24"):
                communicator.receive(np.zeros(2), 1)
        with pytest.raises(CommunicationError, match="expected one of the other ranks"):
            communicator.send(np.zeros(1), communicator.rank)

    as_ranks(place, 2, exchange)


def test_ranks_that_do_not_meet(place: str) -> None:
    with pytest.raises(CommunicationError, match="rank 1 of 2: waited for rank 0, which has not come"):
        join_processes(place, 1, 2, timeout_s=0.05)
    with pytest.raises(CommunicationError, match="rank 0 of 2: waited for rank 1, which has not come"):
        join_processes(place, 0, 2, timeout_s=0.05)
    (Path(place) / "0").touch()
    with pytest.raises(CommunicationError, match="another process is rank 0 already"):
        join_processes(place, 0, 2, timeout_s=0.05)
    (Path(place) / "0").unlink()
    with pytest.raises(CommunicationError, match="the folder in which the processes meet is gone"):
        join_processes(f"{place}/nowhere", 0, 2)
