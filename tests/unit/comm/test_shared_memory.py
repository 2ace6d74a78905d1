from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from paratrain.comm import Communicator, LocalCommunicator, shared_memory
from paratrain.comm.shared_memory import share
from paratrain.comm.threads import run_threads


def mapped() -> int:
    """How many blocks of ours this process has mapped."""
    return Path("/proc/self/maps").read_text().count("memfd:paratrain")


def test_all_ranks_of_a_node_see_each_others_arrays() -> None:
    def rank(communicator: Communicator) -> None:
        shared = share(communicator, [communicator.rank, 5], np.float32)
        assert not isinstance(shared, str)
        first, second = shared
        mates = [0, 2] if communicator.rank in (0, 2) else [1]
        assert [array.size for array in first] == mates
        assert all(array.ctypes.data % 64 == 0 for array in second)
        assert not any(array.any() for array in (*first, *second))
        communicator.barrier()
        second[communicator.local_rank][:] = communicator.rank
        communicator.barrier()
        assert [array.tolist() for array in second] == [[float(mate)] * 5 for mate in mates]

    run_threads(3, rank, node_of_rank=[0, 1, 0])


def test_nothing_stays_open_or_mapped() -> None:
    gc.collect()  # what other tests have left to the collector
    before, handles = mapped(), len(os.listdir("/proc/self/fd"))
    shared = share(LocalCommunicator(), [1000], np.float64)
    assert not isinstance(shared, str)
    assert mapped() == before + 1
    del shared
    gc.collect()
    assert mapped() == before
    assert len(os.listdir("/proc/self/fd")) == handles


def test_too_much_memory_is_told_by_every_rank_and_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    def rank(communicator: Communicator) -> None:
        found = share(communicator, [10_000], np.float32)
        assert found == "rank 0: 40,960 bytes of shared memory cannot be had: No space left on device"

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    handles = len(os.listdir("/proc/self/fd"))
    run_threads(3, rank)
    assert len(os.listdir("/proc/self/fd")) == handles


def test_memory_that_cannot_be_opened_is_told() -> None:
    def rank(communicator: Communicator) -> str:
        found = share(communicator, [10], np.float32)
        assert isinstance(found, str)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paratrain.comm.shared_memory._map", no_access)
        found = run_threads(2, rank)
    assert set(found) == {"rank 0: the shared memory of another rank of the node cannot be opened: Permission denied"}


def no_access(process: int, handle: int, identity: tuple[int, int]) -> None:
    raise PermissionError(13, "Permission denied")


def test_the_same_numbers_in_another_namespace_name_another_file() -> None:
    """As two containers whose processes have the same numbers: each would open a file of its own."""

    def rank(communicator: Communicator) -> str:
        found = share(communicator, [10], np.float32)
        assert isinstance(found, str)
        return found

    new_file = shared_memory._new_file
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as opened:
        other = new_file(4096)
        opened.callback(os.close, other)
        real_open = os.open
        patch.setattr(
            os, "open", lambda path, *more: real_open(f"/proc/self/fd/{other}" if "/fd/" in str(path) else path, *more)
        )
        found = run_threads(2, rank)
    assert set(found) == {
        "rank 0: the shared memory of another rank of the node cannot be opened: its process is in another namespace"
    }


def test_more_than_is_free_is_told_before_anything_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def rank(communicator: Communicator) -> str:
        found = share(communicator, [250], np.float32)
        assert isinstance(found, str)
        return found

    monkeypatch.setattr(shared_memory, "available_bytes", lambda: 8000)
    assert set(run_threads(2, rank)) == {
        "rank 0: 8,192 bytes of shared memory for the ranks of this node are more than the 8,000 that are free"
    }
