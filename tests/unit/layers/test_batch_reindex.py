from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case

LAYER = 'type: "BatchReindex" bottom: "x" bottom: "i"'


def test_golden() -> None:
    run_golden_case("batch_reindex")


@pytest.mark.parametrize(
    ("shape", "index"),
    [((4, 3, 2), [3, 0, 0, 1, 3, 3]), ((1,), [0]), ((3, 1), [2]), ((2, 5), []), ((5, 2, 1, 3), [4, 3, 2, 1, 0])],
)
def test_values_and_gradient(shape: tuple[int, ...], index: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    bottoms = [x, np.array(index, float)]
    check_gradient(LAYER, bottoms, propagate=[True, False])
    (y,) = set_up_layer(LAYER, bottoms).forward()
    assert y.shape == (len(index), *shape[1:])
    for row, place in zip(y, index, strict=True):
        assert np.array_equal(row, x[place])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, r"bottom\[1\] 'i': value 1 is 3; .* from 0 to 2, one of the 3 items of bottom\[0\] 'x'"),
        (-1, "value 1 is -1"),
        (0.5, "value 1 is 0.5; it must be a whole number"),
        (np.nan, "value 1 is nan"),
    ],
)
def test_wrong_index(value: float, message: str) -> None:
    run = set_up_layer(LAYER, [np.zeros((3, 2)), np.array([0, value])])
    with pytest.raises(LayerError, match=message):
        run.forward()


def test_refuses() -> None:
    with pytest.raises(ShapeMismatchError, match=r"bottom\[1\] 'i', the index, is \(2, 1\); it must have one axis"):
        set_up_layer(LAYER, [np.zeros((3, 2)), np.zeros((2, 1))])
    with pytest.raises(ShapeMismatchError, match=r"bottom\[0\] 'x' has no axes"):
        set_up_layer(LAYER, [np.zeros(()), np.zeros(2)])
    run = set_up_layer(LAYER, [np.zeros((3, 2)), np.zeros(2)])
    with pytest.raises(LayerError, match=r"bottom\[1\] 'i' is an index and has no gradient"):
        run.layer.backward(run.tops, [True, True], run.bottoms)
