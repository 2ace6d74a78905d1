from __future__ import annotations

import math

import pytest

from paratrain.errors import SolverError, UnknownNameError
from paratrain.proto import SolverParameter
from paratrain.solvers.lr_policy import LR_POLICIES, check_policy, current_step, learning_rate


def settings(policy: str, **fields: object) -> SolverParameter:
    return SolverParameter(base_lr=0.1, lr_policy=policy, **fields)  # type: ignore[arg-type]


CASES = [
    (settings("fixed"), {0: 0.1, 7: 0.1, 1000: 0.1}),
    (settings("step", gamma=0.5, stepsize=10), {0: 0.1, 9: 0.1, 10: 0.05, 19: 0.05, 20: 0.025, 35: 0.0125}),
    (settings("exp", gamma=0.9), {0: 0.1, 1: 0.09, 2: 0.081, 10: 0.1 * 0.9**10}),
    (settings("inv", gamma=0.01, power=0.75), {0: 0.1, 100: 0.1 / 2**0.75, 300: 0.1 / 4**0.75}),
    (settings("multistep", gamma=0.1, stepvalue=[10, 35]), {0: 0.1, 9: 0.1, 10: 0.01, 34: 0.01, 35: 0.001, 99: 0.001}),
    (settings("poly", power=2.0, max_iter=40), {0: 0.1, 10: 0.1 * 0.75**2, 20: 0.025, 40: 0.0, 50: 0.0}),
    (
        settings("sigmoid", gamma=-0.1, stepsize=50),
        {50: 0.05, 0: 0.1 / (1 + math.exp(-5)), 80: 0.1 / (1 + math.exp(3))},
    ),
    (settings("multifixed", stagelr=[0.3, 0.2], stageiter=[10, 20]), {0: 0.3, 10: 0.3, 11: 0.2, 20: 0.2, 21: 0.2}),
    (settings("plateau", gamma=0.5, plateau_winsize=[5]), {0: 0.1, 99: 0.1}),
]


@pytest.mark.parametrize(("parameter", "rates"), CASES, ids=[case[0].lr_policy for case in CASES])
def test_a_policy_follows_its_formula(parameter: SolverParameter, rates: dict[int, float]) -> None:
    check_policy(parameter)
    for iteration, rate in rates.items():
        assert learning_rate(parameter, iteration) == pytest.approx(rate, rel=1e-6)


def test_every_policy_has_a_case() -> None:
    assert sorted(case[0].lr_policy for case in CASES) == LR_POLICIES.names()


def test_the_rate_of_plateau_falls_with_what_it_has_counted() -> None:
    parameter = settings("plateau", gamma=0.5, plateau_winsize=[5])
    assert [learning_rate(parameter, 7, drops) for drops in range(3)] == pytest.approx([0.1, 0.05, 0.025])


def test_the_sigmoid_does_not_overflow() -> None:
    assert learning_rate(settings("sigmoid", gamma=1.0, stepsize=100000), 0) == 0.0
    assert learning_rate(settings("sigmoid", gamma=-1.0, stepsize=100000), 0) == pytest.approx(0.1)


def test_a_rate_too_large_for_a_float_is_infinite() -> None:
    assert learning_rate(settings("exp", gamma=10.0), 100000) == math.inf


def test_an_unknown_policy_names_the_nearest_or_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="'setp'; did you mean 'step'"):
        check_policy(settings("setp"))
    with pytest.raises(UnknownNameError, match=r"'zzz' \(known: exp, fixed, inv, multifixed, multistep, pl"):
        check_policy(settings("zzz"))


def test_a_missing_policy_is_named() -> None:
    with pytest.raises(SolverError, match="no lr_policy"):
        check_policy(SolverParameter(base_lr=0.1))


@pytest.mark.parametrize(
    ("policy", "fields", "missing"),
    [
        ("step", {}, "gamma and stepsize"),
        ("step", {"gamma": 0.1}, "stepsize"),
        ("exp", {}, "gamma"),
        ("inv", {"gamma": 0.1}, "power"),
        ("multistep", {"gamma": 0.1}, "stepvalue"),
        ("poly", {"max_iter": 10}, "power"),
        ("sigmoid", {"stepsize": 10}, "gamma"),
    ],
)
def test_what_a_policy_needs_must_be_given(policy: str, fields: dict[str, float], missing: str) -> None:
    with pytest.raises(SolverError, match=f"'{policy}' needs {missing}, which"):
        check_policy(settings(policy, **fields))


@pytest.mark.parametrize(
    ("policy", "fields", "message"),
    [
        ("step", {"gamma": 0.1, "stepsize": 0}, "stepsize above 0"),
        ("poly", {"power": 1.0, "max_iter": 0}, "max_iter above 0"),
        ("poly", {"power": -1.0, "max_iter": 5}, "power of 0 or more"),
        ("inv", {"power": 1.0, "gamma": -0.5}, "gamma of 0 or more"),
        ("multistep", {"gamma": 0.1, "stepvalue": [30, 10]}, "must grow"),
        ("multifixed", {"stagelr": [0.1, 0.2], "stageiter": [30, 10]}, "stageiters must grow"),
        ("multifixed", {"stagelr": [0.1], "stageiter": [10, 30]}, "one stagelr for each stageiter; .* gives 1 and 2"),
    ],
)
def test_values_without_a_meaning_are_refused(policy: str, fields: dict[str, float], message: str) -> None:
    with pytest.raises(SolverError, match=message):
        check_policy(settings(policy, **fields))


def test_steps_are_counted_as_caffe_counts_them() -> None:
    assert [current_step(settings("step", gamma=0.5, stepsize=10), at) for at in (0, 9, 10, 29)] == [0, 0, 1, 2]
    assert [current_step(settings("multistep", gamma=0.5, stepvalue=[5, 8]), at) for at in (0, 5, 7, 8, 99)] == [
        0,
        1,
        1,
        2,
        2,
    ]
    assert current_step(settings("inv", gamma=0.5, power=1.0), 50) == 0
