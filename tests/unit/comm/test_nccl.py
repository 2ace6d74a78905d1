"""The exchange by NCCL, with a NCCL that is faked: whom it refuses, and how it ends. Its sums: `test_device_exchanges`."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.errors import CommunicationError
from tests.unit.comm.fake_gpu import FakeDevice, Machine
from tests.unit.comm.test_device_exchanges import MakeDevice, Rank


def refusal(size: int, make: MakeDevice, nodes: Sequence[int] | None = None) -> list[str]:
    machine = Machine()

    def rank(communicator: Communicator) -> str:
        with pytest.raises(CommunicationError) as caught:
            Rank("nccl", communicator, make(machine, communicator.local_rank), 100)
        return str(caught.value)

    return run_threads(size, rank, nodes)


def test_nccl_refuses_ranks_that_share_a_gpu() -> None:
    found = refusal(4, lambda machine, local_rank: FakeDevice(machine, local_rank // 2), [0, 1, 1, 1])
    assert found == [
        f"rank {rank} of 4: ranks 1 and 2 share GPU 0 of node 1, and NCCL wants a GPU for each rank: start as many ranks as "
        "there are GPUs, or exchange otherwise (--exchange sharded)"
        for rank in range(4)
    ]


def test_without_nccl_on_one_rank_all_are_told() -> None:
    found = refusal(2, lambda machine, gpu: FakeDevice(machine, gpu, nccl="no library" if gpu else ""))
    assert found == [f"rank {rank} of 2: rank 1 has no NCCL: no library" for rank in range(2)]


def test_an_error_of_nccl_aborts() -> None:
    machine = Machine()
    devices: list[FakeDevice] = []

    def rank(communicator: Communicator) -> None:
        devices.append(FakeDevice(machine, communicator.rank, refuses="nccl"))
        here = Rank("nccl", communicator, devices[-1], 1000)
        with pytest.raises(CommunicationError, match=f"rank {communicator.rank} of 2: NCCL: NCCL_ERROR_SYSTEM_ERROR"):
            here.step(np.ones(1000, np.float32))
        here.close()

    run_threads(2, rank)
    assert [device.aborted_count for device in devices] == [1, 1]


def test_nccl_lets_go_of_a_rank_that_never_comes() -> None:
    machine, aborted = Machine(), []

    def rank(communicator: Communicator) -> None:
        device = FakeDevice(machine, communicator.rank)
        here = Rank("nccl", communicator, device, 1000)
        if communicator.rank == 1:
            raise ZeroDivisionError("a bug on one rank")
        with pytest.raises(CommunicationError, match="rank 1 ended with ZeroDivisionError"):
            here.step(np.ones(1000, np.float32))
        assert device.exchange.waiting, "the sum hangs"
        thread = threading.Thread(target=here.exchange.abort)  # as whoever watches would
        thread.start()
        thread.join()
        device.synchronize()
        aborted.append(device.aborted_count)

    with pytest.raises(ZeroDivisionError):
        run_threads(2, rank)
    assert aborted == [1]


def test_an_exchange_by_nccl_that_is_forgotten_is_aborted() -> None:
    machine = Machine()

    def rank(communicator: Communicator) -> int:
        device = FakeDevice(machine, communicator.rank)
        Rank("nccl", communicator, device, 10)
        gc.collect()
        return device.aborted_count

    assert run_threads(2, rank) == [1, 1]
