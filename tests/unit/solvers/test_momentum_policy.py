from __future__ import annotations

from pathlib import Path

import pytest

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.solvers.checks import check_parameter
from paratrain.solvers.momentum_policy import momentum_at, weight_decay_at
from tests.unit.solvers.least_squares import make_solver, weights, write_records


def settings(**fields: object) -> SolverParameter:
    parameter = SolverParameter(base_lr=0.1, lr_policy="fixed", **fields)  # type: ignore[arg-type]
    check_parameter(parameter)
    return parameter


def test_momentum_that_stays() -> None:
    assert momentum_at(settings(momentum=0.9), 1000, 0.1) == pytest.approx(0.9)


def test_momentum_that_grows_to_the_largest() -> None:
    fields = {"momentum": 0.5, "max_momentum": 0.9, "momentum_policy": "poly", "max_iter": 10}
    assert [momentum_at(settings(**fields), at, 0.1) for at in (0, 5, 10, 20)] == pytest.approx([0.5, 0.7, 0.9, 0.9])
    squared = settings(**fields, momentum_power=2.0)
    assert momentum_at(squared, 5, 0.1) == pytest.approx(0.5 + 0.4 * 0.25)


def test_momentum_that_follows_the_rate() -> None:
    assert momentum_at(settings(momentum_policy="opt"), 3, 0.16) == pytest.approx(0.8**2)
    assert momentum_at(settings(momentum_policy="opt", max_momentum=0.5), 3, 0.16) == pytest.approx(0.5)


def test_decay_that_grows() -> None:
    fields = {"weight_decay": 0.2, "weight_decay_policy": "poly", "weight_decay_power": 2.0, "max_iter": 10}
    assert [weight_decay_at(settings(**fields), at) for at in (0, 5, 10)] == pytest.approx([0, 0.05, 0.2])
    bounded = settings(**fields, max_weight_decay=0.6)
    assert [weight_decay_at(bounded, at) for at in (0, 5, 10)] == pytest.approx([0.2, 0.3, 0.6])
    assert weight_decay_at(settings(weight_decay=0.2), 7) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"momentum_policy": "step"}, "unknown momentum_policy 'step'; known: fixed, poly, opt"),
        ({"weight_decay_policy": "opt"}, "unknown weight_decay_policy 'opt'; known: fixed, poly"),
        ({"momentum_policy": "poly"}, "momentum_policy 'poly' needs max_iter above 0"),
        ({"momentum_policy": "poly", "max_iter": 9, "momentum_power": -1.0}, "momentum_power is -1"),
        ({"weight_decay_policy": "poly", "max_iter": 9}, "needs weight_decay_power"),
    ],
)
def test_settings_without_a_meaning(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SolverError, match=message):
        settings(**fields)


def test_a_solver_whose_momentum_and_decay_grow(tmp_path: Path) -> None:
    text = (
        'base_lr: 0.1 lr_policy: "fixed" max_iter: 2 momentum: 0.2 max_momentum: 0.6 momentum_policy: "poly" '
        'weight_decay: 0.4 weight_decay_policy: "poly" weight_decay_power: 1'
    )
    solver = make_solver(write_records(tmp_path, [[2.0]], [3]), text)
    solver.step(1)
    assert weights(solver) == pytest.approx([0.9])  # no decay yet
    solver.step(1)
    # gradient 2 * (1.8 - 3) + 0.2 * 0.9 = -2.22, V = 0.4 * -0.4 - 0.222
    assert weights(solver) == pytest.approx([0.9 + 0.16 + 0.222])
    solver.close()
