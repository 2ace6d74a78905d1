from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case


def layer(fields: str) -> str:
    return f'type: "Tile" bottom: "x" tile_param {{ {fields} }}'


def test_golden() -> None:
    run_golden_case("tile")


@pytest.mark.parametrize(
    ("shape", "axis"), [((2, 3, 4), 1), ((2, 3, 4), 0), ((2, 3, 4), -1), ((1,), 0), ((1, 1, 1, 1), 2), ((3, 5), 1)]
)
@pytest.mark.parametrize("tiles", [1, 3])
def test_values_and_gradient(shape: tuple[int, ...], axis: int, tiles: int) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    text = layer(f"axis: {axis} tiles: {tiles}")
    check_gradient(text, [x])
    (y,) = set_up_layer(text, [x]).forward()
    assert np.array_equal(y, np.concatenate([x] * tiles, axis=axis))


def test_axis_1_is_the_default() -> None:
    assert set_up_layer(layer("tiles: 2"), [np.zeros((2, 3, 4))]).tops[0].shape == (2, 6, 4)


def test_refuses() -> None:
    with pytest.raises(LayerError, match=r"layer 'layer' \(Tile\): tile_param.tiles is 0"):
        set_up_layer(layer(""), [np.zeros((2, 3))])
    with pytest.raises(ShapeMismatchError, match=r"tile_param.axis is 2.*\(2, 3\)"):
        set_up_layer(layer("axis: 2 tiles: 2"), [np.zeros((2, 3))])
    with pytest.raises(LayerError, match="cannot work in place"):
        set_up_layer(layer("tiles: 1"), [np.zeros((2, 3))], in_place=True)
