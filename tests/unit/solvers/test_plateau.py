from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.solvers.lr_policy import check_policy
from paratrain.solvers.plateau import Plateau
from tests.unit.solvers.least_squares import make_solver, weights, write_records

POLICY = 'lr_policy: "plateau" gamma: 0.5 plateau_winsize: 3 plateau_winsize: 2 '


def settings(**fields: object) -> SolverParameter:
    values = {"base_lr": 0.8, "lr_policy": "plateau", "gamma": 0.5, "plateau_winsize": [3, 2], **fields}
    parameter = SolverParameter(**values)  # type: ignore[arg-type]
    check_policy(parameter)
    return parameter


def steps(parameter: SolverParameter, losses: Sequence[float]) -> list[int]:
    plateau = Plateau(parameter)
    found: list[int] = []
    for iteration, loss in enumerate(losses):
        fell = plateau.observe(iteration, loss)
        assert fell == (plateau.current_step > (found[-1] if found else 0))
        found.append(plateau.current_step)
    return found


def test_the_rate_falls_where_the_loss_does_not() -> None:
    # Minima at 0 and 2; three iterations later the rate falls, two after that again, and then no more.
    assert steps(settings(), [5, 6, 4, 4, 4, 4, 4, 4, 4, 4, 4]) == [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert steps(settings(), [9, 8, 7, 6, 5, 4, 3]) == [0] * 7


def test_a_new_minimum_puts_the_fall_off() -> None:
    assert steps(settings(), [5, 6, 6, 4, 6, 6, 6, 6, 3, 6]) == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_the_loss_is_smoothed() -> None:
    # Means over two: 8, 7, 6, 6, 6, 6
    assert steps(settings(average_loss=2), [8, 6, 6, 6, 6, 6]) == [0, 0, 0, 0, 0, 1]
    # A single low loss would have been a minimum at 2.
    assert steps(settings(average_loss=2), [6, 7, 5.8, 8, 8, 8])[3] == 1


def test_nothing_counts_while_the_rate_warms_up() -> None:
    assert steps(settings(warmup_iter=4), [1, 5, 5, 5, 5, 5, 5, 5]) == [0, 0, 0, 0, 0, 0, 0, 1]


def test_a_loss_that_is_not_a_number_is_no_minimum() -> None:
    nan = float("nan")
    assert steps(settings(), [nan, 5, nan, nan, nan]) == [0, 0, 0, 0, 1]


def test_a_state_is_restored() -> None:
    losses = [5.0, 6, 6.5, 7, 6, 4, 4.5, 5, 4.25, 6]
    straight, resumed = Plateau(settings(average_loss=3)), Plateau(settings(average_loss=3))
    for iteration, loss in enumerate(losses):
        straight.observe(iteration, loss)
        if iteration == 5:
            resumed.restore(json.loads(json.dumps(straight.state())))
        if iteration > 5:
            resumed.observe(iteration, loss)
    assert resumed.state() == straight.state()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plateau_winsize": []}, "needs plateau_winsize"),
        ({"plateau_winsize": [3, 0]}, "plateau_winsize must be above 0"),
    ],
)
def test_settings_without_a_meaning(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SolverError, match=message):
        settings(**fields)


def test_a_solver_on_a_plateau(tmp_path: Path, log_lines: list[str]) -> None:
    # Steps too small for float32: the loss stays at 2.
    source = write_records(tmp_path, [[2.0]], [3])
    solver = make_solver(source, POLICY + "base_lr: 1e-12 display: 1")
    solver.step(7)
    shown = [float(line.rsplit(" ", 1)[1]) for line in log_lines if ", lr = " in line]
    assert shown == pytest.approx([1e-12] * 3 + [5e-13] * 2 + [2.5e-13] * 2)
    assert "Plateau Status: Iteration 3, step = 1" in log_lines
    state = solver.policy_state()
    assert state == {"current_step": 2, "minimum_loss": 2.0, "iter_last_event": 5, "losses": [2.0]}
    solver.close()


def test_a_solver_goes_on_from_its_policys_state(tmp_path: Path) -> None:
    source = write_records(tmp_path, [[2.0], [1.0]], [3, -1])
    settings = POLICY + f'base_lr: 0.2 average_loss: 2 momentum: 0.5 snapshot_prefix: "{tmp_path}/line"'
    straight, resumed = make_solver(source, settings, batch_size=2), make_solver(source, settings, batch_size=2)
    straight.step(6)
    straight.snapshot()
    state = json.loads(json.dumps(straight.policy_state()))
    straight.step(8)
    straight.close()
    resumed.restore(f"{tmp_path}/line_iter_6.solverstate")
    resumed.restore_policy_state(state)
    resumed.step(8)
    resumed.close()
    assert weights(resumed) == weights(straight)
    assert resumed.policy_state() == straight.policy_state()


def test_other_policies_have_no_state(tmp_path: Path) -> None:
    solver = make_solver(write_records(tmp_path, [[2.0]], [3]), 'base_lr: 0.1 lr_policy: "fixed"')
    assert solver.policy_state() == {}
    solver.restore_policy_state({"current_step": 3, "larc_correlations": [1.0]})
    assert solver.lr == pytest.approx(0.1)
    solver.close()
