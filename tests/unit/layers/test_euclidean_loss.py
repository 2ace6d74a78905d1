from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case

LAYER = 'type: "EuclideanLoss"'


def test_golden() -> None:
    run_golden_case("euclidean_loss")


@pytest.mark.parametrize("propagate", [[True, True], [True, False], [False, True]])
@pytest.mark.parametrize("shape", [(1,), (4, 3), (2, 3, 1, 4)])
def test_gradient(shape: tuple[int, ...], propagate: list[bool]) -> None:
    rng = np.random.default_rng(0)
    check_gradient(f"{LAYER} loss_weight: 0.5", [rng.normal(size=shape), rng.normal(size=shape)], propagate=propagate)


def test_value() -> None:
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 4.0], [3.0, 7.0]])
    assert set_up_layer(LAYER, [a, b]).forward()[0] == (1 + 4 + 0 + 9) / (2 * 2)


def test_shapes_may_differ_where_counts_agree() -> None:
    check_gradient(LAYER, [np.ones((2, 6)), np.zeros((2, 3, 2))])


def test_both_bottoms_may_be_forced_backward() -> None:
    layer = set_up_layer(LAYER, [np.ones(2), np.ones(2)]).layer
    assert layer.allow_force_backward(0)
    assert layer.allow_force_backward(1)


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 4)), ((2, 3), (3, 2)), ((), ())])
def test_wrong_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatchError, match=r"'layer' \(EuclideanLoss\).*bottom0.*bottom1"):
        set_up_layer(LAYER, [np.zeros(a), np.zeros(b)])


def test_a_loss_cannot_work_in_place() -> None:
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(LAYER, [np.zeros(2), np.zeros(2)], in_place=True)
