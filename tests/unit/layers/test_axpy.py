from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer

LAYER = 'type: "Axpy" bottom: "a" bottom: "x" bottom: "y"'


@pytest.mark.parametrize(
    ("factor", "shape"),
    [((2, 3, 1, 1), (2, 3, 4, 5)), ((2, 3), (2, 3, 4, 5)), ((1, 1, 1, 1), (1, 1, 1, 1)), ((3, 2), (3, 2))],
)
def test_values_and_gradient(factor: tuple[int, ...], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, x, y = rng.normal(size=factor), rng.normal(size=shape), rng.normal(size=shape)
    (top,) = set_up_layer(LAYER, [a, x, y]).forward()
    for place in np.ndindex(*shape):
        n, c = place[:2]
        assert top[place] == pytest.approx(a[n, c].item() * x[place] + y[place])
    for propagate in ([True, True, True], [True, False, False], [False, True, False], [False, False, True]):
        check_gradient(LAYER, [a, x, y], propagate=propagate)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3), (2, 4, 5, 5), (2, 4, 5, 5)], "one factor for each image and channel"),
        ([(2, 4, 1, 2), (2, 4, 5, 5), (2, 4, 5, 5)], "one factor for each image and channel"),
        ([(2, 4), (2, 4, 5, 5), (2, 4, 5, 6)], r"'x' \(2, 4, 5, 5\) and bottom\[2\] 'y' \(2, 4, 5, 6\)"),
    ],
)
def test_wrong_shapes(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        set_up_layer(LAYER, [np.ones(shape) for shape in shapes])


def test_wrong_uses() -> None:
    with pytest.raises(LayerError, match="takes exactly 3 bottom"):
        set_up_layer('type: "Axpy"', [np.ones((2, 3)), np.ones((2, 3))])
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(LAYER, [np.ones((2, 3))] * 3, in_place=True)
