"""Silence does nothing on a GPU that could not be recorded: a net that has one runs as a graph."""

from __future__ import annotations

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import create_solver
from tests.unit.net.build import inner_product

# Gradients flow everywhere: what nobody but Silence reads gets zeros.
SOLVER = f"""
base_lr: 0.1 momentum: 0.9 weight_decay: 0.01 lr_policy: "fixed" random_seed: 1 snapshot_after_train: false
net_param {{ force_backward: true
  layer {{ name: "in" type: "DummyData" top: "x" top: "label" dummy_data_param {{ shape {{ dim: 4 dim: 5 }} shape {{ dim: 4 }}
          data_filler {{ type: "gaussian" std: 1 }} data_filler {{ type: "constant" value: 1 }} }} }}
  {inner_product("hidden", "x", "hidden", 6)}
  {inner_product("aside", "hidden", "aside", 2)}
  layer {{ name: "quiet" type: "Silence" bottom: "aside" bottom: "hidden" }}
  {inner_product("score", "hidden", "score", 3)}
  layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }}
}}
"""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_net_with_it_is_recorded(precision: str) -> None:
    found = []
    for is_recorded in (True, False):
        solver = create_solver(parse_prototxt(SOLVER, SolverParameter), backend=create_backend("cupy", precision))
        recorded = solver.net.recorded_pass
        assert recorded is not None
        if not is_recorded:
            solver.net.recorded_pass = None
        solver.step(5)
        assert bool(recorded._recorded) is is_recorded
        found.append(np.append(solver.net.parameters.data.host(), np.float32(solver.loss)))
        solver.close()
    assert np.array_equal(*found)
