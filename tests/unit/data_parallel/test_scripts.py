"""What scripts may do between steps, and what an exchange must not be put out by."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import paratrain
from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import DataParallel
from paratrain.errors import NotFiniteError
from paratrain.solvers import Solver
from tests.unit.data_parallel import test_exchanges
from tests.unit.data_parallel.test_exchanges import EXCHANGES, SETTINGS, make, short_slices, source

__all__ = ["short_slices", "source"]

LAYOUTS = [[0, 0], [0, 1], [0, 0, 1, 1]]

pytestmark = pytest.mark.usefixtures("short_slices")


class MovingAverage(paratrain.Layer):
    """Keeps an average of its input in a blob of its own, as layers of users do."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.blobs.add_blob(1)

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        self.blobs[0].data[...] = 0.9 * self.blobs[0].data + bottom[0].data.mean()
        top[0].data[...] = bottom[0].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        bottom[0].diff[...] = top[0].diff


def parameters_after(source: Path, exchange: str, nodes: list[int], *, look_first: bool) -> list[npt.NDArray[Any]]:
    def main(communicator: Communicator) -> npt.NDArray[Any]:
        solver = make(source, communicator, 3, SETTINGS["plain"], exchange)
        solver.net.forward()
        if look_first:
            solver.net.backward()
        solver.step(2)
        values = solver.net.parameters.data.host().copy()
        communicator.barrier()
        solver.close()
        return values

    return run_threads(len(nodes), main, nodes)


@pytest.mark.parametrize("nodes", LAYOUTS)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_backward_pass_outside_a_step_is_nobodys_business(source: Path, exchange: str, nodes: list[int]) -> None:
    plain = parameters_after(source, exchange, nodes, look_first=False)
    looked = parameters_after(source, exchange, nodes, look_first=True)
    for one, other in zip(plain, looked, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("nodes", LAYOUTS)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_all_slices_are_summed_while_backward_goes_on(source: Path, exchange: str, nodes: list[int]) -> None:
    """Not only as many as may be under way: those that are summed wait for the update and take no place."""

    def main(communicator: Communicator) -> tuple[int, int]:
        solver = make(source, communicator, 3, SETTINGS["plain"], exchange)
        shares = solver.shares
        assert isinstance(shares, DataParallel)
        ended: list[int] = []
        watched = shares.watched

        def note(what: str, index: int, work: Any) -> Any:
            yield from watched(what, index, work)
            if what == "sum":
                ended.append(index)

        shares.watched = note
        original, found = shares.on_gradient_ready, [0]

        def ready() -> None:
            end = time.monotonic() + 5
            while len(ended) < shares.slice_count - 1 and time.monotonic() < end and not in_cache:
                shares._progress.poll()  # the rest of a long backward pass
                time.sleep(0.001)
            found[0] = len(ended)
            original()

        in_cache = shares._exchange.sums_in_cache
        shares.on_gradient_ready = ready  # type: ignore[method-assign]
        solver.step(1)
        communicator.barrier()
        counts = found[0], shares.slice_count
        solver.close()
        return counts if not in_cache else (1, 2)  # sums in shared memory wait for their update on purpose

    for ended_count, slice_count in run_threads(len(nodes), main, nodes):
        assert slice_count > 1
        assert ended_count >= slice_count - 1  # the first layer's may come with the last call


@pytest.mark.parametrize("nodes", LAYOUTS)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_memory_that_is_used_is_the_one_that_is_there(source: Path, exchange: str, nodes: list[int]) -> None:
    def main(communicator: Communicator) -> str:
        solver = make(source, communicator, 3, SETTINGS["plain"], exchange)
        assert isinstance(solver.shares, DataParallel)
        description = solver.shares.description
        communicator.barrier()
        solver.close()
        return description

    node_count = len(set(nodes))
    expected = "by messages" if exchange == "ring" else "through shared memory"
    if node_count > 1:
        expected = "through shared memory within nodes and by messages between them"
    if node_count == len(nodes):
        expected = "by messages"
    for description in run_threads(len(nodes), main, nodes):
        assert description.split(", ")[:2] == [exchange, expected]


@pytest.mark.parametrize("nodes", [[0, 0, 0], [0, 1, 2]])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_what_is_mended_on_the_root_after_an_error_arrives(source: Path, exchange: str, nodes: list[int]) -> None:
    def main(communicator: Communicator) -> npt.NDArray[Any]:
        solver = make(source, communicator, 3, SETTINGS["plain"], exchange)
        solver.step(1)
        see_loss = solver.sentinel.see_loss
        solver.sentinel.see_loss = lambda _: see_loss(float("nan"))  # type: ignore[method-assign]
        with pytest.raises(NotFiniteError):
            solver.step(1)
        solver.sentinel.see_loss = see_loss  # type: ignore[method-assign]
        solver.sentinel.broken_off = None
        communicator.barrier()
        if communicator.rank == 0:
            solver.net.parameters.data.mutable_host()[...] = 0
        _forget_history(solver)
        solver.step(1)
        values = solver.net.parameters.data.host().copy()
        communicator.barrier()
        solver.close()
        return values

    results = run_threads(len(nodes), main, nodes)
    assert all(values.tobytes() == results[0].tobytes() for values in results)
    assert 0 < np.abs(results[0]).sum() < 5  # one step away from zero


def _forget_history(solver: Solver) -> None:
    for flat in solver.flat_update.host_history():
        flat[...] = 0


@pytest.mark.parametrize("nodes", [[0, 0], [0, 1]])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_frozen_blob_that_a_layer_writes_is_the_root_s(
    source: Path, exchange: str, nodes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    average = (
        f'layer {{{{ name: "average" type: "Python" bottom: "conv" top: "kept" param {{{{ lr_mult: 0 }}}} '
        f'python_param {{{{ module: "{__name__}" layer: "MovingAverage" }}}} }}}}\n'
    )
    bottom = 'layer {{ name: "a" type: "InnerProduct" bottom: "conv"'
    changed = test_exchanges.NET.replace(bottom, average + bottom.replace('"conv"', '"kept"'))
    assert changed.count("kept") == 2
    monkeypatch.setattr(test_exchanges, "NET", changed)

    def main(communicator: Communicator) -> float:
        solver = make(source, communicator, 3, SETTINGS["plain"], exchange)
        solver.step(5)
        value = float(solver.net.params["average"][0].data[0])
        communicator.barrier()
        solver.close()
        return value

    first, second = (run_threads(2, main, nodes) for _ in range(2))
    assert first == second
    assert first[0] == first[1] != 0


def test_a_closed_solver_gives_its_shared_memory_back(source: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:paratrain")

    def main(communicator: Communicator) -> None:
        solver = make(source, communicator, 3, SETTINGS["plain"], "sharded")
        solver.step(1)
        communicator.barrier()
        assert mapped() > 0
        solver.close()

    gc.collect()
    before = mapped()
    gc.disable()
    try:
        run_threads(2, main)
        assert mapped() == before
    finally:
        gc.enable()
