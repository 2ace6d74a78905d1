from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case


def slice_layer(fields: str = "") -> str:
    return f'type: "Slice" bottom: "x" slice_param {{ {fields} }}'


def test_golden() -> None:
    run_golden_case("slice")


@pytest.mark.parametrize(
    ("shape", "fields", "count", "axis", "points"),
    [
        ((2, 6, 3, 2), "", 3, 1, [2, 4]),
        ((2, 6), "slice_point: 1 slice_point: 2", 3, 1, [1, 2]),
        ((4, 2, 3), "axis: 0 slice_point: 3", 2, 0, [3]),
        ((2, 3, 5), "axis: -1 slice_point: 4", 2, 2, [4]),
        ((2, 3, 4), "slice_dim: 2", 2, 2, [2]),
        ((2, 3), "", 1, 1, []),
    ],
)
def test_values_and_gradient(shape: tuple[int, ...], fields: str, count: int, axis: int, points: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    check_gradient(slice_layer(fields), [x], top_count=count)
    tops = set_up_layer(slice_layer(fields), [x], top_count=count).forward()
    for top, expected in zip(tops, np.split(x, points, axis=axis), strict=True):
        assert np.array_equal(top, expected)


@pytest.mark.parametrize(
    ("fields", "count", "message"),
    [
        ("", 4, r"axis 1 of bottom\[0\] 'x' \(2, 6\) has 6 entries.*4 tops"),
        ("slice_point: 1", 3, "3 tops need 2 slice_point"),
        ("slice_point: 1 slice_point: 2", 2, "2 tops need 1 slice_point"),
        ("slice_point: 6", 2, r"\[6\] must increase"),
        ("slice_point: 0", 2, r"\[0\] must increase"),
        ("slice_point: 4 slice_point: 2", 3, r"\[4, 2\] must increase"),
        ("axis: 2", 2, "axis is 2"),
        ("axis: 1 slice_dim: 1", 2, "both axis and slice_dim"),
    ],
)
def test_wrong_settings(fields: str, count: int, message: str) -> None:
    with pytest.raises(LayerError, match=message) as caught:
        set_up_layer(slice_layer(fields), [np.zeros((2, 6))], top_count=count)
    assert "layer 'layer' (Slice)" in str(caught.value)


def test_reshape_that_no_longer_fits() -> None:
    run = set_up_layer(slice_layer("slice_point: 4"), [np.zeros((2, 6))], top_count=2)
    run.bottoms[0].reshape(2, 4)
    with pytest.raises(ShapeMismatchError, match="must increase"):
        run.layer.reshape(run.bottoms, run.tops)
