from __future__ import annotations

import math

import numpy as np
import pytest

from paratrain.errors import ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

OPERATIONS = {
    "SUM": sum,
    "ASUM": lambda values: sum(abs(value) for value in values),
    "SUMSQ": lambda values: sum(value * value for value in values),
    "MEAN": lambda values: sum(values) / len(values),
}


@pytest.mark.parametrize("name", golden_names("reduction"))
def test_golden(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert len(golden_names("reduction")) == 4


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("coeff", [1, -2.5])
@pytest.mark.parametrize(
    ("shape", "axis"), [((1,), 0), ((2, 3, 4), 0), ((2, 3, 4), 1), ((2, 3, 4), -1), ((5, 1), 1), ((1, 1, 1, 1), 2)]
)
def test_values_and_gradient(shape: tuple[int, ...], axis: int, coeff: float, operation: str) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    text = f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: {coeff} }}'
    check_gradient(text, [x], kinks=[0])
    (y,) = set_up_layer(text, [x]).forward()
    kept = shape[:axis] if axis else ()
    rows = x.reshape(math.prod(kept), -1).tolist()
    assert y.shape == kept
    np.testing.assert_allclose(y.reshape(-1), [coeff * OPERATIONS[operation](row) for row in rows])


def test_default_is_the_sum_of_everything() -> None:
    (y,) = set_up_layer('type: "Reduction"', [np.ones((2, 3, 4))]).forward()
    assert y.shape == () and y == 24


def test_wrong_axis() -> None:
    with pytest.raises(
        ShapeMismatchError, match=r"reduction_param.axis is 2, but bottom\[0\] 'x' has the shape \(2, 3\)"
    ):
        set_up_layer('type: "Reduction" bottom: "x" reduction_param { axis: 2 }', [np.zeros((2, 3))])
