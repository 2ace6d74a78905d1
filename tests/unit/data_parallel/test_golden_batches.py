"""Ranks of small batches follow Caffe's own run with one batch of 64, and ours of 48, by every exchange."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.net import Parameters
from paratrain.proto import NetParameter, SolverParameter, parse_prototxt
from tests.paths import GOLDEN
from tests.unit.data_parallel.thread_sums import give_threads_sums

EXCHANGES = ("tree", "sharded", "ring", "mpi")
PLACES = [[0, 0], [0, 0, 1, 1]]
# What the recorded run leaves out, in words of its solver, and of its net.
EXTRAS = {
    "clipped": ("clip_gradients: 0.5", ""),
    "two passes": ("iter_size: 2", ""),
    "adam": ('type: "Adam" base_lr: 0.002', ""),
    "shared and dropped": (
        "",
        'layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }'
        'layer { name: "again" type: "InnerProduct" bottom: "ip1" top: "again" param { name: "square" }'
        '  inner_product_param { num_output: 32 weight_filler { type: "xavier" } } }'
        'layer { name: "more" type: "InnerProduct" bottom: "again" top: "more" param { name: "square" }'
        '  inner_product_param { num_output: 32 weight_filler { type: "xavier" } } }',
    ),
}


@pytest.fixture(autouse=True)
def sums_and_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    give_threads_sums(monkeypatch)
    monkeypatch.setattr("paratrain.data_parallel.ways.slice_length", lambda *_: 1500)


def recorded(mnist: Path, batch: int, settings: str = "", layers: str = "") -> SolverParameter:
    """Caffe's recorded run with another batch size, further settings and further layers before its last."""
    solver = (GOLDEN / "solvers" / "sgd_batch_64.solver.prototxt").read_text()
    net = (GOLDEN / "solvers" / "sgd_batch_64.net.prototxt").read_text()
    net = net.replace('"mnist_', f'"{mnist}/mnist_').replace("batch_size: 64", f"batch_size: {batch}", 1)
    if layers:
        net = net.replace('layer { name: "ip2"', f'{layers}\nlayer {{ name: "ip2"', 1)
        net = net.replace(
            'name: "ip2" type: "InnerProduct" bottom: "ip1"', 'name: "ip2" type: "InnerProduct" bottom: "more"'
        )
    parameter = parse_prototxt(solver, SolverParameter)
    parameter.MergeFrom(parse_prototxt(settings, SolverParameter))
    parameter.ClearField("net")
    parameter.net_param.CopyFrom(parse_prototxt(net, NetParameter))
    parameter.snapshot_after_train = False
    return parameter


def losses(parameter: SolverParameter, exchange: str, nodes: list[int], steps: int, weights: str | None) -> list[float]:
    """The mean loss over the ranks of every step. All ranks must hold the same parameters at the end."""

    def main(communicator: Communicator) -> tuple[list[float], bytes]:
        solver = create_parallel_solver(parameter, communicator, exchange=exchange)
        if communicator.rank == 0 and weights is not None:
            solver.net.copy_from(weights)
        found = []
        for _ in range(steps):
            solver.step(1)
            found.append(float(solver.net.blobs["loss"].data))
        values: Parameters = solver.net.parameters
        held = values.data.host().tobytes()
        communicator.barrier()
        solver.close()
        return found, held

    by_rank = run_threads(len(nodes), main, nodes)
    assert len({held for _, held in by_rank}) == 1
    means: list[float] = np.mean([found for found, _ in by_rank], axis=0).tolist()
    return means


@pytest.mark.parametrize("nodes", PLACES)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_ranks_follow_caffe_with_one_batch_of_64(exchange: str, nodes: list[int], mnist_folder: Path) -> None:
    expected = np.load(GOLDEN / "solvers" / "sgd_batch_64.npz")["loss"]
    parameter = recorded(mnist_folder, 64 // len(nodes))
    found = losses(parameter, exchange, nodes, 20, str(GOLDEN / "solvers" / "init.caffemodel"))
    np.testing.assert_allclose(found, expected[:20], rtol=1e-4)


@functools.cache
def alone(mnist: Path, case: str) -> list[float]:
    return losses(recorded(mnist, 48, *EXTRAS[case]), "tree", [0], 12, None)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("case", EXTRAS)
def test_three_ranks_follow_one_with_a_batch_of_48(case: str, exchange: str, mnist_folder: Path) -> None:
    found = losses(recorded(mnist_folder, 16, *EXTRAS[case]), exchange, [0, 1, 1], 12, None)
    np.testing.assert_allclose(found, alone(mnist_folder, case), rtol=2e-4)
    assert len(set(found)) == 12  # it does learn
