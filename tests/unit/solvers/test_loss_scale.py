"""The scale of the loss: what it leaves as it is, and how it follows the gradients."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.comm.communicator import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.errors import NotFiniteError, SolverError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.snapshot import read_training_state
from paratrain.solvers import Solver, loss_scale
from paratrain.solvers.loss_scale import DYNAMIC, LossScale, scale_loss
from tests.unit.solvers.least_squares import NET, make_solver, random_records, weights, write_records

FIXED = 'base_lr: 0.05 lr_policy: "fixed" '
# A prediction of 5e17 for 0: the loss is 1.25e35 and the gradient 5e35, which 680 times is the most that float32 holds.
STEEP = [[1e18]]
GENTLE_RATE = 'base_lr: 1e-37 lr_policy: "fixed" '


def with_scale(solver: Solver, text: str) -> Solver:
    solver.use_loss_scale(LossScale.of(text))
    return solver


@pytest.mark.parametrize("text", ["0", "-2", "nan", "inf", "much", ""])
def test_scales_that_there_are_not(text: str) -> None:
    with pytest.raises(SolverError, match="loss scale"):
        LossScale.of(text)


def test_a_dynamic_scale_follows_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GOOD_STEPS", 3)
    scale = LossScale.of(DYNAMIC)
    seen = []
    for finite in (True, True, False, True, True, True, False, False):
        answered = scale.follow(finite)
        assert answered == (not finite)
        seen.append(scale.value)
    assert seen == [65536, 65536, 32768, 32768, 32768, 65536, 32768, 16384]
    other = LossScale.of(DYNAMIC)
    scale.follow(True)
    other.restore(scale.state())
    assert [other.follow(True), other.value, other.follow(True), other.value] == [False, 16384, False, 32768]


def test_a_dynamic_scale_has_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GOOD_STEPS", 1)
    scale = LossScale.of(DYNAMIC)
    for _ in range(20):
        assert not scale.follow(True)
    assert scale.value == 2.0**24
    assert sum(scale.follow(False) for _ in range(30)) == 24
    assert scale.value == 1.0


def test_a_fixed_scale_stays() -> None:
    scale = LossScale.of("128")
    assert not scale.follow(False)
    scale.restore({"loss_scale": 2.0, "loss_scale_good_steps": 1})
    assert (scale.value, scale.state()) == (128.0, {})
    assert LossScale.default_of(create_backend("numpy")).state() == {}


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("text", ["1024", DYNAMIC])
def test_a_power_of_two_changes_no_bit(tmp_path: Path, kind: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARATRAIN_BACKEND", "numpy")
    settings = FIXED + f'type: "{kind}" momentum: 0.9 weight_decay: 0.1 iter_size: 2 clip_gradients: 5'
    source = random_records(tmp_path)
    plain, scaled = (make_solver(source, settings, batch_size=4, bias=True) for _ in range(2))
    with_scale(scaled, text)
    for _ in range(5):
        plain.step(1)
        scaled.step(1)
        assert scaled.loss == plain.loss
        assert weights(scaled) == weights(plain)
        assert scaled.flat_update.clipped_norm == plain.flat_update.clipped_norm
    # What lies in diff between backward and the update is of the scaled loss.
    for solver in (plain, scaled):
        solver.net.clear_param_diffs()
        solver.net.forward_from_to()
        solver.net.backward_from_to()
    gradients = [solver.net.params["line"][0].diff for solver in (plain, scaled)]
    np.testing.assert_array_equal(gradients[1], gradients[0] * scaled.loss_scale.value)
    scaled.net.reshape()  # fills the loss weights anew
    assert scaled.net.blobs["loss"].diff == scaled.loss_scale.value
    plain.close()
    scaled.close()


def test_scripts_that_run_the_net_themselves(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    stepped, applied = (with_scale(make_solver(source, FIXED, batch_size=4), DYNAMIC) for _ in range(2))
    stepped.step(2)
    for _ in range(2):
        applied.net.clear_param_diffs()
        applied.net.forward_from_to()
        applied.net.backward_from_to()
        applied.apply_update()
    assert weights(applied) == weights(stepped)
    before = weights(applied)
    for scale in (32768.0, 16384.0):
        applied.net.params["line"][0].diff[...] = np.inf
        applied.apply_update()
        assert (weights(applied), applied.loss_scale.value) == (before, scale)
    with_scale(applied, DYNAMIC).loss_scale.value = 1.0
    with pytest.raises(NotFiniteError, match="the gradient is not finite"):
        applied.apply_update()
    stepped.close()
    applied.close()


@pytest.mark.parametrize("nan", ["stop", "skip"])
def test_an_overflow_leaves_the_step_out(tmp_path: Path, nan: str, caplog: pytest.LogCaptureFixture) -> None:
    solver = with_scale(make_solver(write_records(tmp_path, STEEP, [0]), GENTLE_RATE), DYNAMIC)
    solver.sentinel.mode = nan
    with caplog.at_level(logging.INFO):
        for step in range(1, 8):
            solver.step(1)
            assert weights(solver) == [0.5]
            assert solver.loss_scale.value == 65536 / 2**step
        assert solver.loss == pytest.approx(1.25e35)
        solver.step(1)
    assert solver.iter == 8
    assert weights(solver) != [0.5]
    assert solver.loss_scale.value == 512
    lines = [record.message for record in caplog.records if "loss scale" in record.message]
    assert len(lines) == 7
    assert lines[0] == (
        "Iteration 0 is left out: a gradient of the loss times 65536 is not finite. The loss scale is 32768 from now on"
    )
    solver.close()


def test_a_gradient_that_no_scale_makes_finite(tmp_path: Path) -> None:
    solver = with_scale(make_solver(write_records(tmp_path, STEEP, [0]), GENTLE_RATE), DYNAMIC)
    solver.add_callback(lambda: None, lambda: solver.net.params["line"][0].diff.fill(np.nan))
    solver.step(16)
    with pytest.raises(NotFiniteError, match="iteration 16"):
        solver.step(1)
    assert weights(solver) == [0.5]
    solver.close()


def test_a_loss_that_is_not_finite_is_no_overflow(tmp_path: Path) -> None:
    solver = with_scale(make_solver(write_records(tmp_path, [[np.nan]], [0]), FIXED), DYNAMIC)
    with pytest.raises(NotFiniteError, match="the loss is nan"):
        solver.step(1)
    assert solver.loss_scale.value == 65536
    solver.close()


@pytest.mark.parametrize("exchange", ["tree", "sharded"])
def test_ranks_follow_together(tmp_path: Path, exchange: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GOOD_STEPS", 2)
    source = write_records(tmp_path, [[0.0], [1e18], [0.0]], [0, 0, 0])  # the second rank's is steep
    text = NET.format(source=source, batch_size=1, start=0.5, bias="false", params="")
    settings = f"{GENTLE_RATE} random_seed: 1 snapshot_after_train: false net_param {{ {text} }}"
    parameter = parse_prototxt(settings, SolverParameter)

    def main(communicator: Communicator) -> Any:
        solver = create_parallel_solver(parameter, communicator, exchange=exchange)
        solver.use_loss_scale(LossScale.of(DYNAMIC))
        found = []
        for _ in range(10):
            solver.step(1)
            found.append((solver.loss_scale.value, weights(solver)))
        solver.close()
        return found

    found = run_threads(3, main)
    assert found[0] == found[1] == found[2]
    # A third of 5e35 in the mean of three: summed first, 512 is the largest scale that fits; it is tried again and again.
    scales = [scale for scale, _ in found[0]]
    assert scales[:7] == [65536 / 2**step for step in range(1, 8)]
    assert scales[7:] == [512, 1024, 512]
    assert found[0][6][1] == [0.5]
    assert found[0][7][1] != [0.5]


def test_a_resumed_run_goes_on_with_the_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GOOD_STEPS", 4)
    source = random_records(tmp_path)
    settings = FIXED + f'momentum: 0.9 snapshot_prefix: "{tmp_path}/line"'

    def make() -> Solver:
        return with_scale(make_solver(source, settings, batch_size=4), DYNAMIC)

    straight = make()
    straight.step(6)
    straight.snapshot()
    straight.step(3)
    resumed = make()
    resumed.restore(f"{tmp_path}/line_iter_6.solverstate")
    assert (resumed.loss_scale.value, resumed.net.context.loss_scale) == (131072, 131072)
    resumed.step(3)
    assert (resumed.loss_scale.state(), weights(resumed)) == (straight.loss_scale.state(), weights(straight))
    assert straight.loss_scale.state() == {"loss_scale": 262144, "loss_scale_good_steps": 1}
    state = read_training_state(tmp_path / "line_iter_6.trainstate")
    assert state.policy == {"loss_scale": 131072, "loss_scale_good_steps": 2}
    without = make_solver(source, settings, batch_size=4)
    without.restore(f"{tmp_path}/line_iter_6.solverstate")
    assert without.loss_scale.value == 1
    for solver in (straight, resumed, without):
        solver.close()


def test_a_loss_in_python_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    solver = make_solver(random_records(tmp_path), FIXED)
    monkeypatched: Any = next(layer for layer in solver.net.layers if layer.name == "loss")
    monkeypatched.type = "Python"
    scale_loss(solver.net, 8.0)
    scale_loss(solver.net, 4.0)
    assert caplog.text.count("must multiply by top[0].diff") == 1
    solver.close()
