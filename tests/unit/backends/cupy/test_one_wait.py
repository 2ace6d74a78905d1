"""Recorded steps: the update is launched behind the pass, and the host waits once for both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.errors import NotFiniteError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver, create_solver
from paratrain.solvers.nets import NetOptions

SETTINGS = """
base_lr: 0.1 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" random_seed: 1 snapshot_after_train: false average_loss: 3
net_param {
  layer { name: "in" type: "Input" top: "data" top: "label"
          input_param { shape { dim: 6 dim: 5 } shape { dim: 6 } } }
  layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
          inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
  layer { name: "relu" type: "ReLU" bottom: "hidden" top: "hidden" }
  layer { name: "score" type: "InnerProduct" bottom: "hidden" top: "score"
          inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "copies" type: "Split" bottom: "score" top: "score_a" top: "score_b" }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score_a" bottom: "label" top: "loss" }
  layer { name: "aside" type: "SoftmaxWithLoss" bottom: "score_b" bottom: "label" top: "aside" loss_weight: 0.25 }
}
"""


def make(*, records: bool = True, extra: str = "") -> Solver:
    solver = create_solver(
        parse_prototxt(SETTINGS + extra, SolverParameter),
        backend=create_backend("cupy"),
        net_options=NetOptions(plans_memory=True),
    )
    if not records:
        solver.net.recorded_pass = None
    random = np.random.default_rng(3)
    solver.net.blobs["data"].data[...] = random.normal(size=(6, 5))
    solver.net.blobs["label"].data[...] = random.integers(0, 3, 6)
    return solver


def spoil(solver: Solver) -> None:
    solver.net.blobs["data"].data[2, 3] = np.inf


def test_a_step_waits_once_and_gives_what_layer_by_layer_gives(simulated_gpu: Any) -> None:
    import simulated

    recorded, eager = make(), make(records=False)
    losses: list[list[float]] = [[], []]
    for solver, found in zip((recorded, eager), losses, strict=True):
        for _ in range(6):
            solver.step(1)
            found.append(solver.loss)
    assert losses[0] == losses[1]
    assert recorded.smoothed.value == eager.smoothed.value
    assert np.array_equal(recorded.net.parameters.data.host(), eager.net.parameters.data.host())

    recorded.step(1)  # what was read on the host goes back
    before = simulated.counts.copy()
    recorded.step(9)
    names = ("graph_launch", "upload", "download", "synchronize", "allocate")
    found_counts = {name: simulated.counts[name] - before[name] for name in names}
    # A graph of the pass and one of the update, which sends what comes of both; the last download looks for faults. The host
    # waits for that and for each update, and makes sure that the numbers of an update long ago have gone.
    assert found_counts == {"graph_launch": 2 * 9, "upload": 9, "download": 1, "synchronize": 2 * 9 + 1, "allocate": 0}


@pytest.mark.parametrize("extra", ["", "clip_gradients: 1"])
def test_a_loss_that_is_not_finite_updates_nothing(extra: str) -> None:
    solver = make(extra=extra)
    solver.step(5)
    assert solver.net.recorded_pass is not None
    weights = solver.net.parameters.data.host().copy()
    history = solver.flat_update.history[0].host().copy()
    spoil(solver)
    solver.step(0)
    with pytest.raises(NotFiniteError, match=r"iteration 5: .*the loss is nan|iteration 5: .*blob 'data'"):
        solver.step(3)
    assert np.array_equal(solver.net.parameters.data.host(), weights)
    assert np.array_equal(solver.flat_update.history[0].host(), history)


def test_such_a_step_can_be_skipped_and_training_goes_on() -> None:
    spoilt, straight = make(), make()
    for solver in (spoilt, straight):
        solver.sentinel.mode = "skip"
        solver.step(5)
    good = spoilt.net.blobs["data"].data.copy()
    spoil(spoilt)
    spoilt.step(1)
    spoilt.net.blobs["data"].data[...] = good
    for solver in (spoilt, straight):
        solver.step(3)
    assert np.array_equal(spoilt.net.parameters.data.host(), straight.net.parameters.data.host())


def test_what_is_displayed_is_known_before_the_update(caplog: pytest.LogCaptureFixture) -> None:
    solver, eager = make(extra="display: 2"), make(records=False, extra="display: 2")
    lines = []
    for one in (solver, eager):
        caplog.clear()
        with caplog.at_level("INFO"):
            one.step(8)
        shown = [record.getMessage() for record in caplog.records if "loss" in record.getMessage()]
        lines.append([line.split("iter/s")[-1].split(",")[-1] for line in shown if "Creating" not in line])
    assert lines[0] == lines[1]
    assert len(lines[0]) >= 4
