"""Training with gradients that are sent in 16 bits: LeNet learns as well, and all ranks hold the same bits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import DataParallel, create_parallel_solver, exchanged_bytes
from paratrain.data_parallel.gradient_dtype import check_gradient_dtype
from paratrain.errors import NotFiniteError, SolverError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver
from tests.paths import REPOSITORY

LENET = (REPOSITORY / "examples/mnist/lenet_train_test.prototxt").read_text()
# The gradient is 0.2 times the square of the filler's value.
STEEP = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 2 } shape { dim: 4 dim: 1 }
  data_filler { value: FILL } data_filler { value: 0 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 weight_filler { value: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


def on_ranks(
    size: int, net: str, settings: str, run: Callable[[Solver], Any], *, nodes: list[int] | None = None, **options: Any
) -> list[Any]:
    """What `run` returns for the solver of each rank."""
    text = f'lr_policy: "fixed" random_seed: 3 snapshot_after_train: false {settings} net_param {{ {net} }}'

    def main(communicator: Communicator) -> Any:
        solver = create_parallel_solver(parse_prototxt(text, SolverParameter), communicator, **options)
        try:
            found = run(solver)
            communicator.barrier()
            return found
        finally:
            solver.close()

    return run_threads(size, main, nodes)


def lenet(mnist_folder: Path) -> str:
    train = LENET.replace("batch_size: 64", "batch_size: 8").replace("batch_size: 100", "batch_size: 8")
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        train = train.replace(f"examples/mnist/{name}", str(mnist_folder / name)).replace(
            f'"{name}"', f'"{mnist_folder / name}"'
        )
    return train


def test_lenet_learns_as_well_with_bfloat16(mnist_folder: Path) -> None:
    net = lenet(mnist_folder)

    def run(solver: Solver) -> tuple[list[float], bytes]:
        losses = []
        for _ in range(20):
            solver.step(1)
            losses += solver.mean_over_ranks([solver.loss])
        return losses, solver.net.parameters.data.host().tobytes()

    ends = {}
    for dtype in ("float32", "bfloat16"):
        ranks = on_ranks(2, net, "base_lr: 0.03 momentum: 0.9", run, exchange="ring", gradient_dtype=dtype)
        assert ranks[0][1] == ranks[1][1]
        ends[dtype] = ranks[0]
    whole = ends["float32"][0]
    assert np.mean(whole[-5:]) < 0.7 * whole[0]
    rounded = ends["bfloat16"][0]
    assert ends["bfloat16"][1] != ends["float32"][1]
    np.testing.assert_allclose(rounded[:10], whole[:10], rtol=0.02)
    np.testing.assert_allclose(np.mean(rounded[-5:]), np.mean(whole[-5:]), rtol=0.1)


@pytest.mark.parametrize(
    ("exchange", "nodes", "differs", "said"),
    [
        ("tree", [0, 0, 0], False, "tree, through shared memory (where nothing is sent, and bfloat16 changes nothing)"),
        ("sharded", [0, 0, 0], False, "(where nothing is sent, and bfloat16 changes nothing)"),
        ("ring", [0, 0, 0], True, "ring, by messages, gradients sent as bfloat16 and summed in float32"),
        ("tree", [0, 1, 2], True, "tree, by messages, gradients sent as bfloat16"),
        ("tree", [0, 1, 1], True, "and by messages between them, gradients sent as bfloat16"),
        ("sharded", [0, 1, 2], True, "sharded, by messages, gradients sent as bfloat16"),
        ("sharded", [0, 0, 1], True, "and by messages between them, gradients sent as bfloat16"),
    ],
)
def test_what_is_sent_and_what_the_log_says(exchange: str, nodes: list[int], differs: bool, said: str) -> None:
    net = STEEP.replace("FILL", "0.3").replace("value: 0.3", 'type: "gaussian" std: 0.3')

    def run(solver: Solver) -> tuple[bytes, str, tuple[int, int], int]:
        solver.step(3)
        shares = solver.shares
        assert isinstance(shares, DataParallel)
        size = exchanged_bytes(solver.net, 3, shares.gradient_dtype)
        return solver.net.parameters.data.host().tobytes(), shares.description, size, solver.net.parameters.diff.count

    settings = "base_lr: 0.1 momentum: 0.9 iter_size: 2"
    whole, found, again = (
        on_ranks(3, net, settings, run, nodes=nodes, exchange=exchange, gradient_dtype=dtype)
        for dtype in ("float32", "bfloat16", "bfloat16")
    )
    assert len({one[0] for one in found + again}) == 1
    assert (found[0][0] != whole[0][0]) == differs
    assert said in found[0][1]
    down, up = found[0][2]
    assert down == 4 * found[0][3]
    assert up == (2 if differs else 4) * found[0][3]


def test_what_is_too_large_for_float16_stops_the_run_with_a_hint() -> None:
    def run(solver: Solver) -> str:
        if solver.sentinel.mode == "stop":
            with np.errstate(all="ignore"), pytest.raises(NotFiniteError) as raised:
                solver.step(1)
            return str(raised.value)
        return ""

    net = STEEP.replace("FILL", "1e4")
    for message in on_ranks(2, net, "base_lr: 1e-12", run, exchange="ring", gradient_dtype="float16"):
        assert "the sum of the gradients is not finite, though those of each rank's last pass are" in message
        assert "too large for float16, which ends at 65,504, while bfloat16 goes as far as float32" in message

    def trains(solver: Solver) -> None:
        solver.step(1)

    on_ranks(2, net, "base_lr: 1e-12", trains, exchange="ring", gradient_dtype="bfloat16")


def test_float16_overflow_is_skipped_where_steps_may_be() -> None:
    def run(solver: Solver) -> bool:
        solver.sentinel.mode = "skip"
        before = solver.net.parameters.data.host().copy()
        with np.errstate(all="ignore"):
            solver.step(1)
        return np.array_equal(before, solver.net.parameters.data.host())

    logging.getLogger("paratrain").setLevel(logging.ERROR)
    try:
        net = STEEP.replace("FILL", "1e4")
        assert all(on_ranks(2, net, "base_lr: 1e-12", run, exchange="ring", gradient_dtype="float16"))
    finally:
        logging.getLogger("paratrain").setLevel(logging.NOTSET)


def test_mpi_s_own_sums_are_refused() -> None:
    everything = ("tree", "sharded", "ring", "mpi")
    assert check_gradient_dtype("bfloat16", "auto", everything) == everything[:3]
    assert check_gradient_dtype("float32", "mpi", everything) == everything
    with pytest.raises(
        SolverError, match="sent as float16 and summed in float32, and MPI's Allreduce sums what it sends"
    ):
        on_ranks(
            2, STEEP.replace("FILL", "1"), "base_lr: 0.1", lambda _: None, exchange="mpi", gradient_dtype="float16"
        )
    on_ranks(1, STEEP.replace("FILL", "1"), "base_lr: 0.1", lambda _: None, exchange="mpi", gradient_dtype="float16")


def test_debug_info_goes_on_a_tree() -> None:
    """Over two nodes, whose tree is made of messages."""
    settings = "base_lr: 0.1 debug_info: true display: 1"
    on_ranks(2, STEEP.replace("FILL", "1"), settings, lambda s: s.step(2), nodes=[0, 1], gradient_dtype="bfloat16")
