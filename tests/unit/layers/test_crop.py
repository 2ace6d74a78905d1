from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case


def layer(fields: str = "") -> str:
    return f'type: "Crop" bottom: "x" bottom: "y" crop_param {{ {fields} }}'


def test_golden() -> None:
    run_golden_case("crop")


@pytest.mark.parametrize(
    ("fields", "x_shape", "y_shape", "part"),
    [
        ("", (2, 3, 5, 4), (1, 1, 3, 2), np.s_[:, :, :3, :2]),
        ("offset: 1", (2, 3, 5, 4), (1, 1, 3, 2), np.s_[:, :, 1:4, 1:3]),
        ("offset: 2 offset: 0", (2, 3, 5, 4), (2, 3, 3, 4), np.s_[:, :, 2:, :]),
        ("axis: 1 offset: 2 offset: 1 offset: 0", (2, 3, 5, 4), (9, 1, 4, 1), np.s_[:, 2:, 1:, :1]),
        ("axis: 0 offset: 1", (3, 2), (2, 1), np.s_[1:, 1:]),
        ("axis: -1 offset: 3", (2, 5), (7, 2), np.s_[:, 3:]),
        ("axis: 0", (1,), (1,), np.s_[:]),
        ("axis: 1", (2, 4), (2, 3, 8), np.s_[:, :3]),
    ],
)
def test_values_and_gradient(fields: str, x_shape: tuple[int, ...], y_shape: tuple[int, ...], part: Any) -> None:
    x, y = np.random.default_rng(0).normal(size=x_shape), np.ones(y_shape)
    for propagate in ([True, True], [True, False], [False, False]):
        check_gradient(layer(fields), [x, y], propagate=propagate)
    (top,) = set_up_layer(layer(fields), [x, y]).forward()
    assert np.array_equal(top, x[part])


@pytest.mark.parametrize(
    ("fields", "y_shape", "message"),
    [
        (
            "offset: 3",
            (1, 1, 3, 2),
            r"offset 3 and size 3 of bottom\[1\] 'y' .* beyond axis 2 of bottom\[0\] 'x' \(2, 3, 5, 4\)",
        ),
        ("", (1, 1, 3, 5), "offset 0 and size 5 .* beyond axis 3"),
        ("offset: 1 offset: 1 offset: 1", (1, 1, 1, 1), "offset is given 3 times; .* each of the 2 axes"),
        ("axis: 4", (1, 1, 1, 1), "crop_param.axis is 4"),
        ("axis: 1", (1, 1), r"bottom\[1\] 'y' \(1, 1\) .* has only 2 axes"),
    ],
)
def test_refuses(fields: str, y_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        set_up_layer(layer(fields), [np.zeros((2, 3, 5, 4)), np.zeros(y_shape)])


def test_reshape_follows_both_bottoms() -> None:
    run = set_up_layer(layer(), [np.zeros((1, 1, 5, 5)), np.zeros((1, 1, 2, 2))])
    run.bottoms[1].reshape(1, 1, 4, 3)
    run.layer.reshape(run.bottoms, run.tops)
    assert run.forward()[0].shape == (1, 1, 4, 3)
    run.bottoms[0].reshape(1, 1, 3, 3)
    with pytest.raises(ShapeMismatchError, match="beyond axis 2"):
        run.layer.reshape(run.bottoms, run.tops)
