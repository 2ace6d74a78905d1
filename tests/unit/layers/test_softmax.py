from __future__ import annotations

import math

import numpy as np
import pytest

from paratrain.errors import ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def softmax_layer(axis: int = 1) -> str:
    return f'type: "Softmax" softmax_param {{ axis: {axis} }}'


@pytest.mark.parametrize("name", [name for name in golden_names("softmax") if "loss" not in name] or ["softmax"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 4), 1), ((2, 3, 4, 5), 1), ((2, 3, 4), -1), ((2, 3, 4), 0), ((5,), 0)]
)
def test_forward_by_loops(shape: tuple[int, ...], axis: int, in_place: bool) -> None:
    x = np.random.default_rng(0).normal(size=shape) * 4
    (y,) = set_up_layer(softmax_layer(axis), [x], in_place=in_place).forward()
    lines, results = (
        np.moveaxis(x, axis, -1).reshape(-1, shape[axis]),
        np.moveaxis(y, axis, -1).reshape(-1, shape[axis]),
    )
    for line, result in zip(lines, results, strict=True):
        powers = [math.exp(value) for value in line]
        np.testing.assert_allclose(result, [power / sum(powers) for power in powers])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((1, 1), 1), ((3, 4), 1), ((2, 3, 2, 5), 1), ((2, 3, 4), 2), ((4, 2), 0)])
def test_gradient(shape: tuple[int, ...], axis: int, in_place: bool) -> None:
    check_gradient(softmax_layer(axis), [np.random.default_rng(1).normal(size=shape)], in_place=in_place)


def test_large_scores_do_not_overflow() -> None:
    (y,) = set_up_layer(softmax_layer(), [[[1e4, 1e4, -1e4]]], dtype=np.float32).forward()
    assert y.tolist() == [[0.5, 0.5, 0]]


@pytest.mark.parametrize("axis", [2, -3])
def test_wrong_axis(axis: int) -> None:
    with pytest.raises(ShapeMismatchError, match=rf"'layer' \(Softmax\).*axis is {axis}.*\(2, 3\)"):
        set_up_layer(softmax_layer(axis), [np.zeros((2, 3))])
