"""Exchanges between GPUs, on GPUs that are faked: sums in closed form, the same bits on all ranks, nothing left open."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.communicator import Array, Request
from paratrain.comm.cuda_ipc import share_device
from paratrain.comm.device_exchange import create_device_exchange, reaches_others
from paratrain.comm.device_memory import DeviceMemory
from paratrain.comm.device_node import DeviceSharded, DeviceTree
from paratrain.comm.exchange import Exchange
from paratrain.comm.nccl import NcclExchange
from paratrain.comm.progress import Progress, Work
from paratrain.comm.staged import Staged
from paratrain.comm.threads import run_threads
from paratrain.comm.two_level import TwoLevel
from paratrain.topology.planner import binomial
from tests.unit.comm.exchanges import make_exchange, run_step, slices_of
from tests.unit.comm.fake_gpu import FakeDevice, Machine
from tests.unit.comm.test_exchanges import noise

KINDS = ("tree", "sharded", "ring", "mpi", "nccl")
MakeDevice = Callable[[Machine, int], FakeDevice]


class Sums:
    """What MPI's Iallreduce does: the calls of all ranks, each in its rank's order, belong together."""

    def __init__(self, size: int) -> None:
        self.size, self.lock = size, threading.Lock()
        self.calls: dict[int, dict[int, Array]] = {}
        self.counts = [0] * size

    def isum(self, rank: int, array: Array) -> Request:
        with self.lock:
            calls = self.calls.setdefault(self.counts[rank], {})
            self.counts[rank] += 1
            calls[rank] = array
            if len(calls) == self.size:
                assert len({len(one) for one in calls.values()}) == 1, "the ranks' calls differ"
                total = sum(calls[one] for one in range(self.size))
                for one in calls.values():
                    one[...] = total
                calls.clear()

        class Sum(Request):
            def wait(self) -> None:
                raise NotImplementedError

            def test(_) -> bool:  # noqa: N805
                return not calls

        return Sum()


def counts_for(size: int) -> list[int]:
    return sorted({0, 1, size - 1, size, size + 1, 1000})


class Rank:
    """One rank's device, memory and exchange for arrays of `count` elements."""

    def __init__(
        self,
        kind: str,
        communicator: Communicator,
        device: FakeDevice,
        count: int,
        step: int = 300,
        sent: str = "float32",
    ) -> None:
        self.communicator, self.device = communicator, device
        self.memory = DeviceMemory(communicator, device, is_shared=reaches_others(kind, communicator))
        self.memory.diff(count, np.float32)
        self.memory.data(count, np.float32)
        tree = binomial(communicator.size)
        slices = slices_of(count, step)
        self.exchange = create_device_exchange(kind, communicator, device, self.memory, slices, tree, sent)

    def step(self, gradient: Array) -> Array:
        """One step whose update is: parameters += mean gradient. Returns what the computation sees of the parameters."""
        exchange, arrays = self.exchange, self.memory.arrays
        progress = Progress(self.communicator, exchange.most_slices)
        begun = 0

        def work(index: int) -> Work:
            yield from exchange.sum(index)
            yield lambda: begun == len(exchange.slices)
            start, stop = exchange.owned(index)
            self.device.update(arrays.data[start:stop], arrays.diff[start:stop])
            yield from exchange.spread(index)

        for index, (start, stop) in enumerate(exchange.slices):
            self.device.write(gradient[start:stop], arrays.diff[start:stop])  # as backward does, layer by layer
            progress.add(work(index))
            begun += 1
            progress.poll()
        progress.finish("a step of a test")
        return self.device.read(arrays.data)

    def close(self) -> None:
        self.exchange.close()
        self.memory.close()


def run(
    kind: str,
    size: int,
    gradient: Callable[[int, int, int], Array],
    *,
    nodes: Sequence[int] | None = None,
    make: MakeDevice = FakeDevice,
    machine: Machine | None = None,
    expected: type[Exchange] | None = None,
) -> list[list[Array]]:
    """For every rank, the parameters after each of two steps, for every count."""
    machine = machine or Machine()
    sums = Sums(size)

    def rank(communicator: Communicator) -> list[Array]:
        communicator.isum = lambda array: sums.isum(communicator.rank, array)  # type: ignore[method-assign]
        device, found = make(machine, communicator.local_rank), []
        for count in counts_for(size):
            here = Rank(kind, communicator, device, count)
            assert expected is None or isinstance(here.exchange, expected)
            found += [here.step(gradient(communicator.rank, count, step)) for step in range(2)]
            here.close()
        return found

    return run_threads(size, rank, nodes)


def whole(rank: int, count: int, step: int) -> Array:
    """Whole numbers, of which the mean over 1 to 4 ranks times 12 is exact."""
    return ((np.arange(count) % 100 + step) * (rank + 1) * 12).astype(np.float32)


def check(results: list[list[Array]], size: int) -> None:
    index = 0
    for count in counts_for(size):
        expected = np.zeros(count)
        for step in range(2):
            expected += sum(whole(rank, count, step).astype(np.float64) for rank in range(size)) / size
            for result in results:
                np.testing.assert_allclose(result[index], expected, rtol=3e-7)
                assert result[index].tobytes() == results[0][index].tobytes(), "the same bits on all ranks"
            index += 1


def check_nothing_is_left(machine: Machine) -> None:
    gc.collect()
    assert machine.opened_count == machine.closed_count
    assert (machine.block_count, machine.pinned_count, machine.freed_while_open_count) == (0, 0, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_arrives_everywhere(kind: str, size: int) -> None:
    machine = Machine(seed=size)
    check(run(kind, size, whole, machine=machine), size)
    if kind in ("tree", "sharded"):
        assert machine.opened_count == 2 * len(counts_for(size)) * size * (size - 1)
    check_nothing_is_left(machine)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nodes", [[0, 0, 1, 1], [0, 1, 1], [0, 1]])
def test_several_nodes(kind: str, nodes: list[int]) -> None:
    machine = Machine()
    check(run(kind, len(nodes), whole, nodes=nodes, machine=machine), len(nodes))
    check_nothing_is_left(machine)


def test_which_exchange_is_made() -> None:
    for kind, nodes, expected in (
        ("sharded", [0, 0], DeviceSharded),
        ("tree", [0, 0], DeviceTree),
        ("nccl", [0, 0], NcclExchange),
        ("mpi", [0, 0], Staged),
        ("ring", [0, 0], Staged),
        ("tree", [0, 1], Staged),
        ("sharded", [0, 1], Staged),
        ("sharded", [0, 1, 1], TwoLevel),
        ("ring", [0, 1, 1], TwoLevel),
    ):
        run(kind, len(nodes), whole, nodes=nodes, expected=expected)


@pytest.mark.parametrize(("kind", "host"), [("sharded", "shared sharded"), ("tree", "shared tree")])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_same_bits_as_between_cpus(kind: str, host: str, size: int) -> None:
    def rank(communicator: Communicator) -> list[Array]:
        found = []
        for count in counts_for(size):
            exchange = make_exchange(host, communicator, count, step=300)
            found += [run_step(exchange, noise(communicator.rank, count, step)) for step in range(2)]
        return found

    for one, other in zip(run(kind, size, noise)[0], run_threads(size, rank)[0], strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(("kind", "sent"), [("ring", "float16"), ("sharded", "bfloat16"), ("tree", "float32")])
def test_messages_carry_the_same_bits_as_between_cpus(kind: str, sent: str) -> None:
    def rank(communicator: Communicator) -> tuple[Array, Array]:
        gradient = noise(communicator.rank, 1000, 0)
        here = Rank(kind, communicator, FakeDevice(machine, 0), 1000, sent=sent)
        assert isinstance(here.exchange, Staged)
        return here.step(gradient), run_step(make_exchange(kind, communicator, 1000, 300, sent=sent), gradient)

    machine = Machine()
    for one, other in run_threads(3, rank, [0, 1, 2]):
        assert one.tobytes() == other.tobytes()


def test_threads_of_one_process_open_no_handles() -> None:
    machine = Machine()
    results = run("sharded", 3, whole, machine=machine, make=lambda *place: FakeDevice(*place, process="one"))
    check(results, 3)
    assert machine.opened_count == 0
    check_nothing_is_left(machine)


def test_ranks_that_share_a_gpu() -> None:
    machine = Machine()
    check(run("sharded", 3, whole, machine=machine, make=lambda machine, _: FakeDevice(machine, 0)), 3)
    check_nothing_is_left(machine)


@pytest.mark.parametrize("kind", ["tree", "sharded"])
@pytest.mark.parametrize(
    ("refuses", "process", "reason"),
    [
        ("open", "", "rank 1: GPU 1 cannot use the memory of rank 0's GPU: cudaErrorPeerAccessUnsupported"),
        ("reach", "one", "rank 1: GPU 1 cannot use the memory of rank 0's GPU: no direct access"),
    ],
)
def test_where_cuda_refuses_all_ranks_go_through_the_host(kind: str, refuses: str, process: str, reason: str) -> None:
    machine = Machine()

    def make(_: Machine, gpu: int) -> FakeDevice:
        return FakeDevice(machine, gpu, refuses=refuses if gpu == 1 else "", process=process)

    check(run(kind, 3, whole, machine=machine, make=make, expected=Staged), 3)

    def rank(communicator: Communicator) -> tuple[bool, str]:
        memory = DeviceMemory(communicator, make(machine, communicator.rank), is_shared=True)
        memory.diff(10, np.float32)
        assert memory.arrays.node_diffs is None
        return memory.is_shared, memory.problem

    assert run_threads(3, rank) == [(False, reason)] * 3
    check_nothing_is_left(machine)


def test_where_a_gpu_is_full_all_ranks_are_told() -> None:
    machine = Machine()

    def rank(communicator: Communicator) -> object:
        device = FakeDevice(machine, communicator.rank, refuses="allocate" if communicator.rank == 2 else "")
        return share_device(communicator, device, [10, 0, 20], np.float32)

    sentence = "rank 2: GPU 2 gives no memory to other processes: cudaErrorMemoryAllocation"
    assert run_threads(3, rank) == [sentence] * 3
    check_nothing_is_left(machine)


def test_blocks_lie_apart_and_outlive_those_who_have_opened_them() -> None:
    machine = Machine()

    def rank(communicator: Communicator) -> None:
        device = FakeDevice(machine, communicator.rank)
        blocks = share_device(communicator, device, [3 + communicator.rank, 0, 5], np.float64)
        assert not isinstance(blocks, str)
        assert [[len(array) for array in arrays] for arrays in blocks.arrays] == [[3, 4], [0, 0], [5, 5]]
        for index, arrays in enumerate(blocks.arrays):
            own = arrays[communicator.rank]
            device.write(np.full(len(own), 10.0 * index + communicator.rank), own)
            device.read(own)
        communicator.barrier()
        for index, arrays in enumerate(blocks.arrays):
            for other, array in enumerate(arrays):
                assert np.all(device.read(array) == 10.0 * index + other)
        theirs = blocks.arrays[0][1 - communicator.rank]
        del arrays, array, own
        communicator.barrier()
        blocks.close()
        blocks.close()
        with pytest.raises(AssertionError, match="illegal memory access"):
            device.read(theirs)

    run_threads(2, rank)
    assert machine.opened_count == 2
    check_nothing_is_left(machine)


def test_memory_that_cannot_be_pinned_is_used_as_it_is() -> None:
    machine = Machine()
    results = run("ring", 3, whole, machine=machine, make=lambda *place: FakeDevice(*place, pins=False))
    check(results, 3)


class Careless(FakeDevice):
    """Forgets one kind of waiting."""

    forgotten = ""

    def follow(self) -> None:
        if self.forgotten != "follow":
            super().follow()

    def computed(self) -> Callable[[], bool]:
        return (lambda: True) if self.forgotten == "computed" else super().computed()

    def done(self) -> Callable[[], bool]:
        return (lambda: True) if self.forgotten == "done" else super().done()


@pytest.mark.parametrize(
    ("kind", "forgotten"),
    [
        *itertools.product(("sharded", "tree"), ("follow", "computed", "done")),
        *itertools.product(("ring", "mpi", "nccl"), ("follow", "done")),
    ],
)
def test_the_fake_catches_whoever_does_not_wait(kind: str, forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Careless, "forgotten", forgotten)

    def is_right(seed: int) -> bool:
        def rank(communicator: Communicator) -> bool:
            communicator.isum = lambda array: sums.isum(communicator.rank, array)  # type: ignore[method-assign]
            here = Rank(kind, communicator, Careless(machine, communicator.rank), 1000)
            mean = 1.5 * whole(0, 1000, 0)
            found = [here.step(whole(communicator.rank, 1000, 0)) for _ in range(2)]
            return np.array_equal(found, [mean, 2 * mean])

        machine, sums = Machine(seed), Sums(2)
        return all(run_threads(2, rank))

    assert not all(is_right(seed) for seed in range(5))
