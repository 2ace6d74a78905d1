"""Training on simulated GPUs by every exchange: ranks are threads here; tests/integration/test_gpu_training.py has processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends import create_backend
from paratrain.comm import Communicator
from paratrain.comm.cuda import CupyDevice
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import DataParallel, create_parallel_solver
from paratrain.data_parallel.ending import ending_exchange
from paratrain.errors import CommunicationError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.topology.known_machines import known_machine
from paratrain.topology.machine import Machine
from tests.simulated_gpu_path import simulated_gpu  # noqa: F401
from tests.unit.data_parallel.test_exchanges import NET as CPU_NET
from tests.unit.data_parallel.test_exchanges import SETTINGS, source  # noqa: F401

NET = CPU_NET.replace('layer {{ name: "drop" type: "Dropout" bottom: "a" top: "a" }}\n', "")
STEPS = 3
Result = tuple[npt.NDArray[Any], list[npt.NDArray[Any]], str]


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the parameters of the small net into many slices."""
    monkeypatch.setattr("paratrain.data_parallel.ways.slice_length", lambda *_: 500)
    monkeypatch.setattr("paratrain.data_parallel.device_way.slice_length", lambda *_: 500)
    monkeypatch.setattr("paratrain.data_parallel.device_way.device_slice_length", lambda: 1100)


def train(
    source: Path,  # noqa: F811
    batch: int,
    settings: str,
    nodes: list[int],
    *,
    backend: str = "cupy",
    machine: Machine | None = None,
    **options: Any,
) -> list[Result]:
    """For every rank its parameters, its (on the root complete) histories, and what the log says of the exchange."""
    net = NET.format(source=source, batch=batch).replace(
        'type: "Data"', 'type: "Data" transform_param { scale: 0.004 }', 1
    )
    text = (
        f'base_lr: 0.05 lr_policy: "fixed" random_seed: 3 snapshot_after_train: false {settings} net_param {{ {net} }}'
    )

    def main(communicator: Communicator) -> Result:
        solver = create_parallel_solver(
            parse_prototxt(text, SolverParameter),
            communicator,
            backend=create_backend(backend),
            find_machine=None if machine is None else lambda _: machine,
            **options,
        )
        with ending_exchange(solver):
            solver.step(1)
            solver.step(STEPS - 1)
        values = solver.net.parameters.data.host().copy()
        histories = [flat.copy() for flat in solver.flat_update.host_history()]
        for flat in histories:
            solver.shares.gather(flat)
        description = solver.shares.description if isinstance(solver.shares, DataParallel) else ""
        communicator.barrier()
        solver.close()
        return values, histories, description

    return run_threads(len(nodes), main, nodes)


@pytest.mark.parametrize("case", ["plain", "clipped", "two passes", "adam"])
def test_three_ranks_take_the_steps_of_one(source: Path, case: str) -> None:  # noqa: F811
    [(alone, history, _)] = train(source, 12, SETTINGS[case], [0], backend="numpy")
    for exchange, nodes, way in (
        ("tree", [0, 0, 0], "tree, through the GPUs' memory (CUDA IPC), the root updates"),
        ("sharded", [0, 0, 0], "sharded, through the GPUs' memory (CUDA IPC), every rank updates a part"),
        ("ring", [0, 0, 0], "ring, through the host's memory, every rank updates a part"),
        ("tree", [0, 1, 1], "tree, through the host's memory, the root updates"),
        ("sharded", [0, 1, 1], "through the GPUs' memory (CUDA IPC) within nodes and through the host between them"),
    ):
        first, *others = train(source, 4, SETTINGS[case], nodes, exchange=exchange)
        np.testing.assert_allclose(first[0], alone, rtol=2e-3, atol=2e-5)
        for one, whole in zip(first[1], history, strict=True):
            np.testing.assert_allclose(one, whole, rtol=5e-3, atol=2e-5)
        assert all(np.array_equal(other[0], first[0]) for other in others)
        assert way in first[2]


def test_fewer_roots_and_gradients_in_16_bits(source: Path) -> None:  # noqa: F811
    [(alone, *_)] = train(source, 12, SETTINGS["plain"], [0], backend="numpy")
    for nodes, options, words in (
        ([0, 0, 0], {"exchange": "sharded", "roots": 2}, "2 of 3 ranks update a part each"),
        ([0, 0, 1], {"exchange": "sharded", "roots": 1}, "the root updates"),
        (
            [0, 1, 1],
            {"exchange": "ring", "gradient_dtype": "float16"},
            "gradients sent as float16 and summed in float32",
        ),
    ):
        found = train(source, 4, SETTINGS["plain"], nodes, **options)
        np.testing.assert_allclose(found[0][0], alone, rtol=2e-3, atol=2e-4)
        assert all(np.array_equal(one[0], found[0][0]) for one in found)
        assert words in found[0][2]


def test_the_tree_follows_the_links_and_goes_around_bad_ones(source: Path) -> None:  # noqa: F811
    """Four GPUs in pairs, of which the planner knows that 0 and 2 are near each other."""
    machine = known_machine("caffe-4x-pcie")
    found = train(source, 3, SETTINGS["plain"], [0] * 4, machine=machine, exchange="tree")
    [(alone, *_)] = train(source, 12, SETTINGS["plain"], [0], backend="numpy")
    np.testing.assert_allclose(found[0][0], alone, rtol=2e-3, atol=2e-5)
    bad = machine.with_vetoes({(0, 1): "a copy hung", (0, 2): "a copy hung", (0, 3): "a copy hung"})
    for exchange in ("tree", "sharded"):
        around = train(source, 3, SETTINGS["plain"], [0] * 4, machine=bad, exchange=exchange)
        assert "through the host's memory (a copy hung)" in around[0][2]
        np.testing.assert_allclose(around[0][0], alone, rtol=2e-3, atol=2e-5)
    one_bad = replace(machine, vetoes={(0, 1): "a copy hung"})
    ways = [
        train(source, 3, SETTINGS["plain"], [0] * 4, machine=one_bad, exchange=name)[0][2]
        for name in ("tree", "sharded")
    ]
    assert "through the GPUs' memory" in ways[0]
    assert "through the host's memory (a copy hung)" in ways[1]


class ThreadGroup:
    """NCCL's sums among ranks that are threads: a call is done when all ranks have come to it."""

    def __init__(self, size: int) -> None:
        self.meeting = threading.Barrier(size)
        self.arrays: dict[int, Any] = {}


class ThreadCollectives:
    """See :class:`paratrain.comm.device.Collectives`."""

    def __init__(self, group: ThreadGroup, size: int, rank: int, stream: Any) -> None:
        self._group, self._size, self._rank, self._stream = group, size, rank, stream

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        yield

    def _all(self, array: Any) -> list[npt.NDArray[Any]]:
        self._group.arrays[self._rank] = array.get(self._stream)
        self._group.meeting.wait(30)
        found = [self._group.arrays[rank] for rank in range(self._size)]
        self._group.meeting.wait(30)
        return found

    def _piece(self, array: Any, rank: int) -> slice:
        assert len(array) % self._size == 0
        return slice(rank * len(array) // self._size, (rank + 1) * len(array) // self._size)

    def reduce_scatter(self, array: Any) -> None:
        piece = self._piece(array, self._rank)
        array[piece].set(np.sum([other[piece] for other in self._all(array)], axis=0), self._stream)

    def all_gather(self, array: Any) -> None:
        for rank, other in enumerate(self._all(array)):
            piece = self._piece(array, rank)
            array[piece].set(other[piece], self._stream)

    def reduce(self, array: Any, root: int) -> None:
        found = self._all(array)
        if self._rank == root:
            array.set(np.sum(found, axis=0), self._stream)

    def broadcast(self, array: Any, root: int) -> None:
        array.set(self._all(array)[root], self._stream)

    def check(self) -> None:
        pass

    def abort(self) -> None:
        self._group.meeting.abort()

    def close(self) -> None:
        pass


def test_nccl_and_what_it_cannot_do(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    with pytest.raises(CommunicationError, match="--exchange nccl: rank 0 has no NCCL"):
        train(source, 4, SETTINGS["plain"], [0] * 3, exchange="nccl")
    group = ThreadGroup(3)
    monkeypatch.setattr(CupyDevice, "nccl_problem", "")
    with pytest.raises(CommunicationError, match="ranks 0 and 1 and 2 share GPU 0"):
        train(source, 4, SETTINGS["plain"], [0] * 3, exchange="nccl")
    monkeypatch.setattr(CupyDevice, "nccl_shares_gpus", True)
    monkeypatch.setattr(CupyDevice, "nccl_identity", lambda _: "meet here")

    def join(device: CupyDevice, _: Any, size: int, rank: int) -> ThreadCollectives:
        return ThreadCollectives(group, size, rank, device._stream)

    monkeypatch.setattr(CupyDevice, "join_nccl", join)
    for case in ("plain", "clipped"):
        [(alone, *_)] = train(source, 12, SETTINGS[case], [0], backend="numpy")
        first, *others = train(source, 4, SETTINGS[case], [0, 0, 0], exchange="nccl")
        np.testing.assert_allclose(first[0], alone, rtol=2e-3, atol=2e-5)
        assert all(np.array_equal(other[0], first[0]) for other in others)
        assert first[2] == "nccl, between the GPUs, every rank updates a part"
