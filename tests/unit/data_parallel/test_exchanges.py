"""Training by every exchange: the steps of one rank with all batches together, whatever a step needs."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends import BACKEND_VARIABLE
from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data import LmdbWriter
from paratrain.data_parallel import create_parallel_solver
from paratrain.net import Net
from paratrain.proto import Datum, SolverParameter, parse_prototxt
from paratrain.solvers import Solver
from tests.optional import need_onednn
from tests.unit.data_parallel.thread_sums import give_threads_sums

EXCHANGES = ("tree", "sharded", "ring")
# Layers a and b share a weight, so that its gradient is complete only when the first of them is done.
NET = """
layer {{ name: "records" type: "Data" top: "x" top: "y" data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "a" type: "InnerProduct" bottom: "conv" top: "a" param {{ name: "shared" }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 64 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "a" top: "a" }}
layer {{ name: "b" type: "InnerProduct" bottom: "a" top: "b" param {{ name: "shared" }}
  inner_product_param {{ num_output: 64 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "score" type: "InnerProduct" bottom: "b" top: "score" inner_product_param {{ num_output: 3
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "y" top: "loss" }}
"""
SETTINGS = {
    "plain": 'type: "SGD" momentum: 0.9 weight_decay: 0.01',
    "at the end": 'type: "SGD" momentum: 0.9 weight_decay: 0.01 layer_wise_reduce: false',
    "clipped": 'type: "SGD" momentum: 0.9 clip_gradients: 0.5',
    "two passes": 'type: "SGD" momentum: 0.9 weight_decay: 0.01 iter_size: 2',
    "adam": 'type: "Adam" momentum: 0.9 weight_decay: 0.01 regularization_type: "L1"',
    "local rates": 'type: "SGD" momentum: 0.9 larc: true larc_eta: 0.1 larc_turbo: true',
}
STEPS = 6
Result = tuple[npt.NDArray[Any], list[float], list[npt.NDArray[Any]]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "lmdb"
    rng = np.random.default_rng(5)
    with LmdbWriter(path) as writer:
        for index in range(96):
            datum = Datum(channels=1, height=6, width=6, label=int(rng.integers(3)), data=rng.bytes(36))
            writer.put(b"%08d" % index, datum.SerializeToString())
    return path


def make(source: Path, communicator: Communicator, batch: int, settings: str, exchange: str) -> Solver:
    transform = NET.format(source=source, batch=batch).replace(
        'type: "Data"', 'type: "Data" transform_param { scale: 0.004 }', 1
    )
    text = f'base_lr: 0.05 lr_policy: "fixed" random_seed: 3 snapshot_after_train: false {settings} net_param {{ {transform} }}'
    return create_parallel_solver(parse_prototxt(text, SolverParameter), communicator, exchange=exchange)


def train(
    source: Path, size: int, batch: int, settings: str, exchange: str, nodes: list[int] | None = None
) -> list[Result]:
    """For every rank its parameters, losses and (on the root complete) histories."""

    def main(communicator: Communicator) -> Result:
        solver = make(source, communicator, batch, settings, exchange)
        losses = []
        for count in (1, STEPS - 1):
            solver.step(count)
            losses.append(solver.loss)
        values = solver.net.parameters.data.host().copy()
        histories = [flat.copy() for flat in solver.flat_update.host_history()]
        for flat in histories:
            solver.shares.gather(flat)
        communicator.barrier()
        solver.close()
        return values, losses, histories

    return run_threads(size, main, nodes)


@functools.cache
def train_alone(source: Path, case: str) -> Result:
    [result] = train(source, 1, 12, SETTINGS[case], "tree")
    return result


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the parameters of the small net into many slices."""
    monkeypatch.setattr("paratrain.data_parallel.ways.slice_length", lambda *_: 500)


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("nodes", [[0, 0, 0], [0, 1, 1], [0, 1, 2]])
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("case", SETTINGS)
def test_three_ranks_take_the_steps_of_one(source: Path, case: str, exchange: str, nodes: list[int]) -> None:
    alone, _, history = train_alone(source, case)
    first, *others = train(source, 3, 4, SETTINGS[case], exchange, nodes)
    np.testing.assert_allclose(first[0], alone, rtol=2e-3, atol=2e-5)
    for one, whole in zip(first[2], history, strict=True):
        np.testing.assert_allclose(one, whole, rtol=5e-3, atol=2e-5)
    assert all(np.array_equal(other[0], first[0]) for other in others)
    again = train(source, 3, 4, SETTINGS[case], exchange, nodes)
    assert np.array_equal(again[0][0], first[0])


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("nodes", [[0, 0, 0], [0, 1, 1]])
@pytest.mark.parametrize("exchange", [*EXCHANGES, "mpi"])
def test_overlap_changes_no_bit(source: Path, exchange: str, nodes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    give_threads_sums(monkeypatch)
    for case in ("plain", "clipped", "two passes", "adam"):
        ways = SETTINGS[case], f"{SETTINGS[case]} layer_wise_reduce: false"
        during, after = (train(source, 3, 4, settings, exchange, nodes) for settings in ways)
        assert np.array_equal(during[0][0], after[0][0]), case
        assert all(np.array_equal(one, other) for one, other in zip(during[0][2], after[0][2], strict=True)), case


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_two_ranks_learn_the_same_bits_by_every_exchange(
    source: Path, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum of two numbers does not depend on their order. (oneDNN adds them to the weight decay one after the other.)"""
    monkeypatch.setenv(BACKEND_VARIABLE, "numpy")
    for settings in (SETTINGS["plain"], SETTINGS["adam"]):
        expected, found = (train(source, 2, 6, settings, name)[0][0] for name in ("tree", exchange))
        assert np.array_equal(found, expected)


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_changes_that_a_script_makes_on_the_root_reach_all(source: Path, exchange: str) -> None:
    def main(communicator: Communicator) -> float:
        solver = make(source, communicator, 4, SETTINGS["plain"], exchange)
        solver.step(2)
        communicator.barrier()
        if communicator.rank == 0:
            solver.net.parameters.data.mutable_host()[...] = 0
        solver.step(1)
        values = solver.net.parameters.data.host().copy()
        communicator.barrier()
        solver.close()
        return float(np.abs(values).sum())

    sums = run_threads(3, main)
    assert len(set(sums)) == 1
    assert sums[0] < 3  # one step from zero: only momentum and the last bias


@pytest.mark.usefixtures("short_slices")
def test_history_is_spread_and_not_copied(source: Path) -> None:
    def main(communicator: Communicator) -> tuple[int, int]:
        solver = make(source, communicator, 4, SETTINGS["plain"], "sharded")
        solver.step(2)
        touched = int(np.count_nonzero(solver.flat_update.host_history()[0]))
        owned = sum(stop - start for start, stop in solver.shares.owned)
        communicator.barrier()
        solver.close()
        return touched, owned

    found = run_threads(3, main)
    count = sum(owned for _, owned in found)
    assert all(touched <= owned < count / 2 for touched, owned in found)
    assert sum(touched for touched, _ in found) > count / 4


def test_slices_cover_the_parameters_in_the_order_of_backward(source: Path) -> None:
    from paratrain.comm import LocalCommunicator
    from paratrain.data_parallel.slices import find_slices

    solver = make(source, LocalCommunicator(), 4, SETTINGS["plain"], "tree")
    net: Net = solver.net
    for length in (1, 100, 500, 10**9):
        slices = find_slices(net, length)
        edges = [found.part for found in slices]
        assert edges[0][1] == net.parameters.diff.count
        assert edges[-1][0] == 0
        assert all(one[0] == following[1] for one, following in itertools.pairwise(edges))
        assert [found.ready_at for found in slices] == sorted((found.ready_at for found in slices), reverse=True)
        for found in slices:  # no gradient in it is touched by layers that come later in backward
            for entry in net.parameters.learning:
                if entry.start < found.part[1] and entry.stop > found.part[0]:
                    assert found.ready_at <= net.layer_names.index(entry.layer_name)
    solver.close()


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("backend", ["numpy", "onednn"])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_parameters_without_a_gradient_only_decay(
    source: Path, exchange: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes their gradient: what lies there, from before it was cleared, reaches no rank."""
    if backend == "onednn":
        need_onednn()
    monkeypatch.setenv(BACKEND_VARIABLE, backend)
    idle = """layer { name: "idle" type: "InnerProduct" bottom: "b" top: "idle"
      inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
    layer { name: "silence" type: "Silence" bottom: "idle" }"""
    text = NET.format(source=source, batch=4) + idle
    settings = 'base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.5 random_seed: 3 snapshot_after_train: false'
    parameter = parse_prototxt(f"{settings} net_param {{ {text} }}", SolverParameter)

    def main(communicator: Communicator) -> list[npt.NDArray[Any]]:
        solver = create_parallel_solver(parameter, communicator, exchange=exchange)
        weights = solver.net.params["idle"][0].data
        kept = [weights.copy()]
        for _ in range(2):
            solver.net.parameters.diff.mutable_host()[...] = 1e3
            communicator.barrier()
            solver.step(1)
            kept.append(weights.copy())
        communicator.barrier()
        solver.close()
        return kept

    for before, once, twice in run_threads(2, main, [0, 0]):
        np.testing.assert_allclose(once, before * 0.95, rtol=1e-5)
        np.testing.assert_allclose(twice, before * 0.95**2, rtol=1e-5)
