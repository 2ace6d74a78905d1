from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, distinct_values, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

SHAPES = [(1,), (3, 4), (2, 3, 1, 4), ()]


def eltwise_layer(fields: str) -> str:
    return f'type: "Eltwise" bottom: "a" bottom: "b" eltwise_param {{ {fields} }}'


@pytest.mark.parametrize("name", golden_names("eltwise") or ["eltwise_sum"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fields", ["operation: SUM", "operation: PROD", "operation: PROD stable_prod_grad: false", ""])
def test_gradient(fields: str, shape: tuple[int, ...], count: int) -> None:
    rng = np.random.default_rng(0)
    check_gradient(eltwise_layer(fields), [rng.uniform(0.5, 2, size=shape) for _ in range(count)])


@pytest.mark.parametrize("coeffs", [(0.5, -2), (1, -1), (1, 1, -1), (-1, 1, 0.25), (1, 1, 1, 3)])
def test_sum_with_coefficients(coeffs: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    bottoms = [rng.normal(size=(2, 3)) for _ in coeffs]
    layer = eltwise_layer(" ".join(f"coeff: {coeff}" for coeff in coeffs))
    check_gradient(layer, bottoms)
    expected = sum(coeff * bottom for coeff, bottom in zip(coeffs, bottoms, strict=True))
    np.testing.assert_allclose(set_up_layer(layer, bottoms).forward()[0], expected)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_max(shape: tuple[int, ...], count: int) -> None:
    values = distinct_values((count, *shape), np.random.default_rng(2))
    check_gradient(eltwise_layer("operation: MAX"), list(values))
    (y,) = set_up_layer(eltwise_layer("operation: MAX"), list(values)).forward()
    assert np.array_equal(y, values.max(axis=0))


@pytest.mark.parametrize(
    ("values", "chosen"), [((1, 1), 1), ((1, 1, 1), 1), ((2, 1, 2), 0), ((1, 2, 2), 1), ((1, 1, 2), 2), ((0, 0, -1), 1)]
)
def test_which_of_equal_values_max_takes(values: tuple[int, ...], chosen: int) -> None:
    run = set_up_layer(eltwise_layer("operation: MAX"), [np.full(1, float(value)) for value in values])
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True] * len(values), run.bottoms)
    assert [float(blob.diff[0]) for blob in run.bottoms] == [float(index == chosen) for index in range(len(values))]


def test_stable_product_is_right_for_zeros() -> None:
    check_gradient(eltwise_layer("operation: PROD"), [np.zeros((2, 2)), np.ones((2, 2)), np.full((2, 2), 3.0)])


def test_only_wanted_gradients_are_written() -> None:
    for operation in ("SUM", "PROD"):
        check_gradient(eltwise_layer(f"operation: {operation}"), [np.ones(3), np.full(3, 2.0)], propagate=[False, True])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("operation: PROD coeff: 1 coeff: 1", "SUM only"),
        ("coeff: 1", "1 times for 2 bottoms"),
        ("operation: STOCHASTIC_SUM", "not supported"),
    ],
)
def test_wrong_settings(fields: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        set_up_layer(eltwise_layer(fields), [np.zeros(2), np.zeros(2)])


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeMismatchError, match=r"'layer' \(Eltwise\): bottom\[1\] 'b' \(3, 2\).*'a' \(2, 3\)"):
        set_up_layer(eltwise_layer(""), [np.zeros((2, 3)), np.zeros((3, 2))])


def test_one_bottom_is_too_few() -> None:
    with pytest.raises(LayerError, match="at least 2 bottom"):
        set_up_layer('type: "Eltwise"', [np.zeros(2)])


def test_in_place_is_refused() -> None:
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(eltwise_layer(""), [np.zeros(2), np.zeros(2)], in_place=True)
