from __future__ import annotations

import numpy as np
import pytest

from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case

SETTINGS = [
    (1, 1, 0),
    (1, 2, -3),
    (2, 0.5, 3),
    (2, 1, 0),
    (3, -1, 4),
    (0.5, 2, 5),
    (-1, 1, 4),
    (-0.7, 1, 4),
    (0, 2, 1),
    (2, 0, 3),
]


def power_layer(power: float, scale: float, shift: float) -> str:
    return f'type: "Power" power_param {{ power: {power} scale: {scale} shift: {shift} }}'


def test_golden() -> None:
    run_golden_case("power")


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
def test_forward(setting: tuple[float, float, float], in_place: bool) -> None:
    power, scale, shift = setting
    x = np.random.default_rng(0).uniform(0.5, 2, size=(3, 4))
    (y,) = set_up_layer(power_layer(*setting), [x], in_place=in_place).forward()
    expected = [[(shift + scale * value) ** power for value in row] for row in x.tolist()]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(1,), (2, 3, 4), ()])
@pytest.mark.parametrize("setting", SETTINGS)
def test_gradient(setting: tuple[float, float, float], shape: tuple[int, ...], in_place: bool) -> None:
    x = np.random.default_rng(1).uniform(0.5, 2, size=shape)
    check_gradient(power_layer(*setting), [x], in_place=in_place)


def test_gradient_of_a_cube_at_zero() -> None:
    check_gradient(power_layer(3, 1, 0), [np.zeros((2, 2))])


def test_powers_that_do_not_exist_are_not_numbers() -> None:
    (y,) = set_up_layer(power_layer(0.3, 1, 0), [np.array([-1.0, 1.0])]).forward()
    assert np.isnan(y[0])
    assert y[1] == 1
