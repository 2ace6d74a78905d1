"""What somebody does to a net between recorded steps counts in the next, as it does layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from paratrain.backends import Backend, create_backend
from paratrain.net import Net
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver, create_solver

SOLVER = """
base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" random_seed: 1 snapshot_after_train: false
net_param {
  layer { name: "in" type: "Input" top: "x" top: "label"
          input_param { shape { dim: 4 dim: 2 dim: 5 dim: 5 } shape { dim: 4 } } }
  layer { name: "c" type: "Convolution" bottom: "x" top: "c"
          convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
  layer { name: "score" type: "InnerProduct" bottom: "c" top: "score"
          inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
}
"""


def make(backend: Backend) -> Solver:
    solver = create_solver(parse_prototxt(SOLVER, SolverParameter), backend=backend)
    feed(solver.net)
    return solver


def feed(net: Net) -> None:
    random = np.random.default_rng(3)
    net.blobs["x"].data[...] = random.normal(size=(4, 2, 5, 5))
    net.blobs["label"].data[...] = [0, 1, 2, 0]


def take_the_weights_of_another(solver: Solver) -> None:
    other = make(solver.backend).net
    other.params["c"][0].data[...] = 0.2
    solver.net.share_trained_layers_with(other)
    solver.after_update.append(lambda: other.params["score"][0].data.__imul__(0.5))


def take_another_shape_for_a_while(solver: Solver) -> None:
    for count in (2, 4):
        solver.net.blobs["x"].reshape(count, 2, 5, 5)
        solver.net.blobs["label"].reshape(count)
        solver.net.reshape()
    feed(solver.net)


def run_some_layers(solver: Solver) -> None:
    solver.net.forward(end="c")


def write_weights(solver: Solver) -> None:
    solver.net.params["c"][0].data[...] *= 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "act", [take_the_weights_of_another, take_another_shape_for_a_while, run_some_layers, write_weights]
)
def test_steps_afterwards_are_those_of_layer_by_layer(act: Callable[[Solver], None], precision: str) -> None:
    solvers = [make(create_backend("cupy", precision)) for _ in range(2)]
    solvers[1].net.recorded_pass = None
    for solver in solvers:
        solver.step(4)
        act(solver)
        solver.step(4)
    for memory in ("data", "statistics"):
        arrays = [getattr(solver.net.parameters, memory).host() for solver in solvers]
        assert np.array_equal(*arrays)
    assert solvers[0].loss == solvers[1].loss
    for solver in solvers:
        solver.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_batch_that_is_not_finite_is_skipped(precision: str) -> None:
    solvers = [make(create_backend("cupy", precision)) for _ in range(2)]
    solvers[1].net.recorded_pass = None
    for solver in solvers:
        solver.sentinel.mode = "skip"
        solver.step(4)
        before = solver.net.parameters.data.host().copy()
        solver.net.blobs["x"].data[1, :, 2, 2] = np.inf, -np.inf
        solver.step(1)
        assert np.array_equal(solver.net.parameters.data.host(), before)
        feed(solver.net)
        solver.step(3)
    assert np.array_equal(*[solver.net.parameters.data.host() for solver in solvers])
    assert np.isfinite(solvers[0].loss) and solvers[0].loss == solvers[1].loss
    for solver in solvers:
        solver.close()
