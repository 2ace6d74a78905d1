"""Each type of solver: steps worked out by hand, and what all of them have in common."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter, SolverState, parse_prototxt, read_binary
from paratrain.solvers import SOLVERS, Solver
from paratrain.solvers.checks import check_parameter
from paratrain.solvers.update import FlatUpdate
from tests.unit.solvers.least_squares import make_solver, random_records, weights, write_records

FIXED = 'base_lr: 0.1 lr_policy: "fixed" '
TYPES = {
    "SGD": "momentum: 0.9",
    "Nesterov": "momentum: 0.9",
    "AdaGrad": "",
    "RMSProp": "rms_decay: 0.9",
    "AdaDelta": "momentum: 0.9 delta: 1e-4",
    "Adam": "momentum: 0.9",
    "AdamW": "momentum: 0.9",
}
HISTORY_COUNTS = {"SGD": 1, "Nesterov": 1, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 2, "AdamW": 2}


def settings_of(kind: str) -> str:
    return f'{FIXED} type: "{kind}" {TYPES[kind]} '


def test_every_type_is_here() -> None:
    assert sorted(TYPES) == SOLVERS.names()
    assert {kind: SOLVERS.get(kind).history_count for kind in TYPES} == HISTORY_COUNTS


# One record: x = 2, y = 3. From the weight w the error is 2 w - 3 and the gradient 2 (2 w - 3); w = 0.5 gives -4.
def gradient(w: float) -> float:
    return 2 * (2 * w - 3)


def nesterov() -> list[float]:
    # V = 0.1 * -4 = -0.4, step 1.5 * -0.4; then V = 0.5 * -0.4 + 0.1 * -1.6 = -0.36, step 1.5 * -0.36 + 0.5 * 0.4
    return [1.1, 1.44]


def adagrad() -> list[float]:
    # H = 16, step 0.1 * -4 / (4 + 1); then the gradient is -3.68 and H = 16 + 13.5424
    return [0.58, 0.58 + 0.368 / (math.sqrt(29.5424) + 1)]


def rmsprop() -> list[float]:
    # H = 0.25 * 16 = 4, step 0.1 * -4 / (2 + 1); then H = 0.75 * 4 + 0.25 g^2
    first = 0.5 + 0.4 / 3
    g = gradient(first)
    return [first, first - 0.1 * g / (math.sqrt(3 + 0.25 * g * g) + 1)]


def adadelta() -> list[float]:
    # G = 0.25 * 16 = 4, u = -4 * sqrt(1 / 5), U = 0.25 * 16 / 5 = 0.8; then G = 0.75 * 4 + 0.25 g^2, u = g sqrt(1.8 / (G + 1))
    first = 0.5 + 0.4 / math.sqrt(5)
    g = gradient(first)
    return [first, first - 0.1 * g * math.sqrt(1.8 / (4 + 0.25 * g * g))]


def adam() -> list[float]:
    # M = -2, V = 4, c = sqrt(0.25) / 0.5 = 1, step 0.1 * -2 / (2 + 1); then c = sqrt(1 - 0.5625) / 0.75
    first = 0.5 + 0.2 / 3
    g = gradient(first)
    c = math.sqrt(0.4375) / 0.75
    return [first, first - 0.1 * c * (-1 + 0.5 * g) / (math.sqrt(3 + 0.25 * g * g) + 1)]


def adamw() -> list[float]:
    # M / 0.5 = -4, sqrt(V / 0.25) = 4, step 0.1 * (-4 / (4 + 1) + 0.2 * 0.5); then M / 0.75 and V / 0.4375
    first = 0.57
    g = gradient(first)
    mean, root = (-1 + 0.5 * g) / 0.75, math.sqrt((3 + 0.25 * g * g) / 0.4375)
    return [first, first - 0.1 * (mean / (root + 1) + 0.2 * first)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('type: "Nesterov" momentum: 0.5', nesterov),
        ('type: "AdaGrad" delta: 1', adagrad),
        ('type: "RMSProp" delta: 1 rms_decay: 0.75', rmsprop),
        ('type: "AdaDelta" delta: 1 momentum: 0.75', adadelta),
        ('type: "Adam" delta: 1 momentum: 0.5 momentum2: 0.75', adam),
        ('type: "AdamW" delta: 1 momentum: 0.5 momentum2: 0.75 weight_decay: 0.2', adamw),
    ],
)
def test_two_steps_worked_out_by_hand(tmp_path: Path, settings: str, expected: Callable[[], list[float]]) -> None:
    solver = make_solver(write_records(tmp_path, [[2.0]], [3]), FIXED + settings)
    solver.keeps_updates = True
    found = []
    for _ in range(2):
        before = weights(solver)[0]
        solver.step(1)
        found += weights(solver)
        # As in Caffe, diff holds what was subtracted.
        assert before - float(solver.net.params["line"][0].diff[0, 0]) == pytest.approx(found[-1], rel=1e-6)
    assert found == pytest.approx(expected(), rel=1e-5)
    solver.close()


def test_weight_decay_of_adam_is_part_of_the_gradient(tmp_path: Path) -> None:
    solver = make_solver(write_records(tmp_path, [[2.0]], [3]), FIXED + 'type: "Adam" delta: 1 weight_decay: 0.2')
    solver.step(1)
    # Without momentum M is the gradient, -4 + 0.2 * 0.5; V = 0.001 M^2 and c = sqrt(0.001).
    root = math.sqrt(0.001)
    assert weights(solver) == pytest.approx([0.5 + 0.1 * root * 3.9 / (root * 3.9 + 1)], rel=1e-4)
    solver.close()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("extra", ["", "clip_gradients: 1"])
def test_iter_size_k_is_one_batch_k_times_as_large(tmp_path: Path, kind: str, extra: str) -> None:
    source = random_records(tmp_path)
    # Gradients of k batches are added up before they are clipped: k times the norm.
    settings = settings_of(kind) + "weight_decay: 0.05 "
    large = make_solver(source, settings + extra, batch_size=8, bias=True)
    small = make_solver(source, settings + extra.replace("1", "4") + " iter_size: 4", batch_size=2, bias=True)
    for _ in range(6):
        large.step(1)
        small.step(1)
        assert weights(small) == pytest.approx(weights(large), rel=1e-4)
    large.close()
    small.close()


@pytest.mark.parametrize("local", ["", "larc: true", "local_lr_auto: true"])
@pytest.mark.parametrize("kind", TYPES)
def test_updating_slices_in_any_order_gives_the_same_bits(
    tmp_path: Path, kind: str, local: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paratrain.solvers.update.PIECE_COUNT", 16)
    source = random_records(tmp_path, width=50)
    params = "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"
    settings = settings_of(kind) + f"weight_decay: 0.05 clip_gradients: 2 {local} max_iter: 9"
    results = []
    for seed in (None, 1, 2):
        solver = make_solver(source, settings, batch_size=4, bias=True, params=params)
        update = FlatUpdate(
            solver.net.parameters,
            solver.backend,
            solver.parameter,
            solver.history_count,
            decoupled_decay=solver.decoupled_decay,
        )
        edges = [0, 51] if seed is None else [0, 7, 20, 33, 50, 51]
        for _ in range(3):
            solver.net.clear_param_diffs()
            solver.net.forward_from_to()
            solver.net.backward_from_to()
            solver.prepare_update(0.1)
            update.begin(0.1)
            ranges = list(itertools.pairwise(edges))
            random.Random(seed).shuffle(ranges)
            for start, stop in ranges:
                update.update(solver.compute_update_value, start, stop)
        results.append(
            [solver.net.parameters.data.host().tobytes(), *(flat.tobytes() for flat in update.host_history())]
        )
        solver.close()
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("kind", TYPES)
def test_a_resumed_run_continues_bit_for_bit(tmp_path: Path, kind: str) -> None:
    source = random_records(tmp_path, count=4)
    settings = settings_of(kind) + f'weight_decay: 0.01 snapshot_prefix: "{tmp_path}/line"'

    def make() -> Solver:
        return make_solver(source, settings, batch_size=4, bias=True)

    straight, resumed = make(), make()
    straight.step(5)
    straight.snapshot()
    straight.step(5)
    straight.close()
    resumed.restore(f"{tmp_path}/line_iter_5.solverstate")
    resumed.step(5)
    resumed.close()
    assert weights(resumed) == weights(straight)


def test_two_histories_stand_one_after_the_other_in_the_state(tmp_path: Path) -> None:
    settings = FIXED + f'type: "Adam" momentum: 0.5 momentum2: 0.75 snapshot_prefix: "{tmp_path}/line"'
    solver = make_solver(write_records(tmp_path, [[2.0]], [3]), settings, bias=True)
    solver.step(1)
    solver.snapshot()
    solver.close()
    state = read_binary(tmp_path / "line_iter_1.solverstate", SolverState)
    # The gradients are -4 and -2: M of weight and bias, then V of weight and bias.
    assert [list(blob.data) for blob in state.history] == [[-2.0], [-1.0], [4.0], [1.0]]
    assert [list(blob.shape.dim) for blob in state.history] == [[1, 1], [1], [1, 1], [1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "AdaGrad" momentum: 0.9', "momentum is 0.9, and solver type AdaGrad has none"),
        ('type: "RMSProp" momentum: 0.9', "momentum is 0.9, and solver type RMSProp has none"),
        ('type: "RMSProp" rms_decay: 1', "rms_decay is 1; it must be 0 or more, and below 1"),
        ('type: "RMSProp" rms_decay: -0.5', "rms_decay is -0.5"),
        ('type: "AdaDelta" momentum: 1', "momentum is 1; AdaDelta averages with it"),
        ('type: "Adam" momentum: 1', "momentum is 1; Adam averages with it"),
        ('type: "Adam" momentum2: 1', "momentum2 is 1; Adam averages with it"),
        ('type: "AdamW" momentum2: -1', "momentum2 is -1; AdamW averages with it"),
        ('type: "Adam" momentum_policy: "opt"', "momentum_policy: 'opt' is for the solver types SGD and Nesterov"),
        ('type: "Adam" larc: true larc_turbo: true', "larc_turbo is for the solver types SGD and Nesterov"),
        ('type: "AdaGrad" delta: -1', "delta is -1; it must be 0 or more"),
    ],
)
def test_settings_that_a_type_cannot_follow(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SolverError, match=message):
        make_solver(random_records(tmp_path), FIXED + text)


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_learns_the_line(tmp_path: Path, kind: str) -> None:
    inputs = np.random.default_rng(3).integers(-3, 4, (24, 2)).astype(float)
    labels = [int(row @ [2, -1]) for row in inputs]
    rate = {"AdaGrad": 0.5, "AdaDelta": 1.0}.get(kind, 0.02)
    settings = settings_of(kind).replace("base_lr: 0.1", f"base_lr: {rate}")
    solver = make_solver(write_records(tmp_path, inputs, labels), settings, batch_size=24)
    check_parameter(parse_prototxt(settings, SolverParameter))
    solver.step(400)
    assert weights(solver) == pytest.approx([2, -1], abs=0.05)
    solver.close()
