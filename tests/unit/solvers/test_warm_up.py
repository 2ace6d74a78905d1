from __future__ import annotations

from pathlib import Path

import pytest

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.solvers.lr_policy import check_policy, learning_rate
from paratrain.solvers.warm_up import momentum_correction
from tests.unit.solvers.least_squares import make_solver, random_records, write_records


def settings(**fields: object) -> SolverParameter:
    return SolverParameter(**{"base_lr": 0.8, "lr_policy": "fixed", **fields})  # type: ignore[arg-type]


def rates(parameter: SolverParameter, *iterations: int) -> list[float]:
    check_policy(parameter)
    return [learning_rate(parameter, iteration) for iteration in iterations]


def test_the_linear_warm_up() -> None:
    parameter = settings(warmup_iter=4, warmup_start_lr=0.4)
    assert rates(parameter, 0, 1, 2, 3, 4, 9) == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.8])
    assert rates(settings(warmup_iter=4), 0, 1, 3, 4) == pytest.approx([0.0, 0.2, 0.6, 0.8])


def test_the_square_warm_up() -> None:
    parameter = settings(rampup_interval=4, rampup_lr=0.4)
    assert rates(parameter, 0, 1, 2, 3, 4, 9) == pytest.approx([0.4, 0.425, 0.5, 0.625, 0.8, 0.8])
    assert rates(settings(rampup_interval=4), 0, 1, 2, 4) == pytest.approx([0.0, 0.05, 0.2, 0.8])


def test_the_policy_goes_on_from_the_iteration_it_is_at() -> None:
    parameter = settings(lr_policy="multistep", gamma=0.5, stepvalue=[2, 6], warmup_iter=4)
    assert rates(parameter, 3, 4, 5, 6) == pytest.approx([0.6, 0.4, 0.4, 0.2])


def test_the_lowest_rate() -> None:
    assert rates(settings(lr_policy="exp", gamma=0.5, min_lr=0.3), 0, 1, 2, 9) == pytest.approx([0.8, 0.4, 0.3, 0.3])
    assert rates(settings(rampup_interval=4, min_lr=0.1), 0, 1, 2) == pytest.approx([0.1, 0.1, 0.2])
    # poly falls to min_lr, instead of being cut off there
    poly = settings(lr_policy="poly", power=2.0, max_iter=4, min_lr=0.4)
    assert rates(poly, 0, 1, 2, 4, 7) == pytest.approx([0.8, 0.4 + 0.4 * 0.5625, 0.5, 0.4, 0.4])


def test_momentum_is_corrected_by_how_the_rate_grows() -> None:
    parameter = settings(warmup_iter=4, warmup_start_lr=0.4)
    found = [momentum_correction(parameter, iteration) for iteration in range(6)]
    assert found == pytest.approx([1, 0.5 / 0.4, 0.6 / 0.5, 0.7 / 0.6, 1, 1])
    from_zero = settings(warmup_iter=4)
    assert [momentum_correction(from_zero, iteration) for iteration in range(4)] == pytest.approx([1, 1, 2, 1.5])
    assert momentum_correction(settings(rampup_interval=4, rampup_lr=0.1), 2) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup_iter": -1}, "warmup_iter is -1"),
        ({"rampup_interval": -1}, "rampup_interval is -1"),
        ({"warmup_iter": 5, "rampup_interval": 5}, "choose one warm-up"),
        ({"min_lr": -0.1}, "min_lr is -0.1"),
        ({"lr_policy": "poly", "power": 1.0, "max_iter": 9, "min_lr": 1.0}, "min_lr 1 is above base_lr 0.8"),
    ],
)
def test_settings_without_a_meaning(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SolverError, match=message):
        check_policy(settings(**fields))


def test_a_solver_that_warms_up(tmp_path: Path) -> None:
    # Steps of 0.1 and 0.2 of the gradient, and momentum 0.5 * 2 in the second.
    source = write_records(tmp_path, [[2.0]], [3])
    text = 'base_lr: 0.3 lr_policy: "fixed" momentum: 0.5 warmup_iter: 2 warmup_start_lr: 0.1'
    solver = make_solver(source, text)
    solver.step(1)
    weight = solver.net.params["line"][0].data
    assert float(weight[0, 0]) == pytest.approx(0.5 + 0.4)
    solver.step(1)
    assert float(weight[0, 0]) == pytest.approx(0.9 + 2 * 0.5 * 0.4 + 0.2 * 2.4)
    solver.close()


def test_the_rate_that_is_shown_is_the_warm_ups(tmp_path: Path, log_lines: list[str]) -> None:
    text = 'base_lr: 0.4 lr_policy: "fixed" rampup_interval: 2 display: 1'
    solver = make_solver(random_records(tmp_path), text)
    solver.step(3)
    solver.close()
    shown = [line.rsplit(" ", 1)[1] for line in log_lines if ", lr = " in line]
    assert shown == ["0", "0.1", "0.4"]
