from __future__ import annotations

import math

import numpy as np
import pytest

from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case

SHAPES = [(1,), (4, 3), (1, 1, 1, 1), (2, 3, 4, 5), ()]
LAYERS = {
    "relu": 'type: "ReLU"',
    "leaky": 'type: "ReLU" relu_param { negative_slope: 0.25 }',
    "steep": 'type: "ReLU" relu_param { negative_slope: 1.5 }',
    "negative": 'type: "ReLU" relu_param { negative_slope: -0.5 }',
    "sigmoid": 'type: "Sigmoid"',
    "tanh": 'type: "TanH"',
}


def plain(name: str, x: float) -> float:
    slope = {"relu": 0.0, "leaky": 0.25, "steep": 1.5, "negative": -0.5}
    if name in slope:
        return x if x > 0 else slope[name] * x
    return math.tanh(x) if name == "tanh" else 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("name", ["relu", "relu_leaky", "sigmoid", "tanh"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_forward(name: str, in_place: bool) -> None:
    x = np.random.default_rng(0).normal(size=(3, 2, 5)) * 3
    x[0, 0, 0] = 0
    (y,) = set_up_layer(LAYERS[name], [x], in_place=in_place).forward()
    expected = [plain(name, value) for value in x.reshape(-1)]
    np.testing.assert_allclose(y.reshape(-1), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LAYERS)
def test_gradient(name: str, shape: tuple[int, ...], in_place: bool) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    check_gradient(LAYERS[name], [x], kinks=[0] if "ReLU" in LAYERS[name] else [], in_place=in_place)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_large_values_saturate_silently(name: str) -> None:
    (y,) = set_up_layer(LAYERS[name], [np.array([-1e4, 1e4])], dtype=np.float32).forward()
    assert y.tolist() == ([0, 1] if name == "sigmoid" else [-1, 1])


def test_relu_gradient_at_zero_is_the_slope() -> None:
    for slope in (0.0, 0.25):
        run = set_up_layer(f'type: "ReLU" relu_param {{ negative_slope: {slope} }}', [np.zeros(2)])
        run.forward()
        run.tops[0].diff[...] = 1
        run.layer.backward(run.tops, [True], run.bottoms)
        assert run.bottoms[0].diff.tolist() == [slope, slope]


@pytest.mark.parametrize("name", LAYERS)
def test_reshape_to_more_and_fewer_values(name: str) -> None:
    run = set_up_layer(LAYERS[name], [np.ones((2, 3))])
    for shape in ((4, 5), (1, 2), (3, 3)):
        run.bottoms[0].reshape(*shape)
        run.bottoms[0].data[...] = -0.7
        run.layer.reshape(run.bottoms, run.tops)
        (y,) = run.forward()
        np.testing.assert_allclose(y, np.full(shape, plain(name, -0.7)))
        run.tops[0].diff[...] = 2
        run.layer.backward(run.tops, [True], run.bottoms)
        slope = (plain(name, -0.7 + 1e-6) - plain(name, -0.7 - 1e-6)) / 2e-6
        np.testing.assert_allclose(run.bottoms[0].diff, np.full(shape, 2 * slope), rtol=1e-5)
