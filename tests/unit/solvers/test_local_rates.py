"""Layer-wise rates. One record, x = 2 and y = 3, and w = 0.5: the gradients are -4 by the weight and -2 by the bias."""

from __future__ import annotations

from pathlib import Path

import pytest

from paratrain.errors import SnapshotError, SolverError
from tests.unit.solvers.least_squares import make_solver, random_records, weights, write_records

FIXED = 'base_lr: 0.1 lr_policy: "fixed" '


@pytest.fixture
def one_record(tmp_path: Path) -> Path:
    return write_records(tmp_path, [[2.0]], [3])


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("larc: true larc_eta: 0.8", 0.1 * 0.8 * 0.5 / 4),
        ('larc: true larc_eta: 0.4 larc_policy: "clip"', 0.4 * 0.5 / 4),
        ('larc: true larc_eta: 4 larc_policy: "clip"', 0.1),
        ("larc: true", 0.1 * 0.001 * 0.5 / 4),
        ("local_lr_auto: true local_gw_ratio: 0.8", 0.1 * 0.8 * 0.5 / (4 + 0.2 * 0.5)),
    ],
)
def test_the_rate_follows_from_the_norms(one_record: Path, text: str, rate: float) -> None:
    # The bias is 0, so it has no ratio: its rate is the solver's. lr_mult only tells which blobs learn.
    params = "param { lr_mult: 3 } param { lr_mult: 5 decay_mult: 0 }"
    solver = make_solver(one_record, FIXED + f"weight_decay: 0.2 {text}", bias=True, params=params)
    solver.step(1)
    assert weights(solver) == pytest.approx([0.5 + rate * (4 - 0.1), 0.1 * 2])
    solver.close()


def test_the_norm_is_that_of_a_blob(tmp_path: Path) -> None:
    solver = make_solver(write_records(tmp_path, [[2.0, 1.0, 2.0]], [1]), FIXED + "larc: true larc_eta: 0.5")
    solver.step(1)
    # prediction 2.5, error 1.5, gradient 1.5 x of norm 4.5; the weights' norm is 0.5 sqrt(3)
    rate = 0.1 * 0.5 * 0.5 * 3**0.5 / 4.5
    assert weights(solver) == pytest.approx([0.5 - rate * 3, 0.5 - rate * 1.5, 0.5 - rate * 3])
    solver.close()


def test_blobs_that_do_not_learn_stay(one_record: Path) -> None:
    for text in ("larc: true", "local_lr_auto: true", 'larc: true larc_policy: "clip"'):
        solver = make_solver(one_record, FIXED + text, bias=True, params="param { lr_mult: 0 } param { lr_mult: 1 }")
        solver.step(2)
        assert weights(solver)[0] == 0.5
        assert weights(solver)[1] != 0
        solver.close()


def test_the_norm_is_of_gradients_that_are_clipped_and_averaged(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    settings = FIXED + "larc: true larc_eta: 0.1 momentum: 0.9 weight_decay: 0.05 "
    large = make_solver(source, settings, batch_size=8, bias=True)
    small = make_solver(source, settings + "iter_size: 4", batch_size=2, bias=True)
    for _ in range(6):
        large.step(1)
        small.step(1)
        assert weights(small) == pytest.approx(weights(large), rel=1e-5)
    large.close()
    small.close()


def test_turbo_slows_down_where_gradient_and_step_agree(one_record: Path) -> None:
    settings = FIXED + "larc: true larc_eta: 0.1 larc_turbo: true momentum: 0.5"
    solver = make_solver(one_record, settings)
    solver.keeps_updates = True
    solver.step(2)
    assert solver.policy_state() == {"larc_correlations": [0.0]}
    weight, step = weights(solver)[0], float(solver.net.params["line"][0].diff[0, 0])
    solver.step(1)
    # A single value: gradient and step point the same way, cosine 1, so that c = 0.05 and the rate is 0.955 of itself.
    gradient = 2 * (2 * weight - 3)
    rate = 0.1 * 0.1 * weight / -gradient * (1 - 0.9 * 0.05)
    assert weights(solver) == pytest.approx([weight - (0.5 * step + rate * gradient)])
    assert solver.policy_state()["larc_correlations"] == pytest.approx([0.05])
    other = make_solver(one_record, settings)
    other.restore_policy_state(solver.policy_state())
    assert other.policy_state() == solver.policy_state()
    with pytest.raises(SnapshotError, match="correlations of 2 parameters; this net has 1"):
        other.restore_policy_state({"larc_correlations": [0.1, 0.2]})
    solver.close()
    other.close()


def test_only_what_needs_norms_needs_all_gradients_at_once(one_record: Path) -> None:
    for text, needs_all in (
        ("", False),
        ("clip_gradients: 1", True),
        ("larc: true", True),
        ("local_lr_auto: true", True),
    ):
        solver = make_solver(one_record, FIXED + text)
        assert solver.needs_all_gradients == needs_all
        solver.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("larc: true local_lr_auto: true", "gives larc .* and local_lr_auto .*; choose one"),
        ('larc: true larc_policy: "auto"', "unknown larc_policy 'auto'; known: scale, clip"),
        ("larc_turbo: true", "larc_turbo needs larc: true"),
        ("larc: true larc_eta: 0", "larc_eta is 0; it must be above 0"),
        ("local_lr_auto: true local_gw_ratio: -1", "local_gw_ratio is -1"),
    ],
)
def test_settings_without_a_meaning(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SolverError, match=message):
        make_solver(random_records(tmp_path), FIXED + text)
