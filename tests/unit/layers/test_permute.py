from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer


def permute_layer(*order: int) -> str:
    return f'type: "Permute" bottom: "x" permute_param {{ {" ".join(f"order: {axis}" for axis in order)} }}'


CASES = [
    ((2, 3, 4, 5), (0, 2, 3, 1), (0, 2, 3, 1)),
    ((2, 3, 4, 5), (3, 1), (3, 1, 0, 2)),
    ((2, 3, 4, 5), (), (0, 1, 2, 3)),
    ((1, 3, 1, 2), (0, 2, 3, 1), (0, 2, 3, 1)),
    ((3, 2), (1,), (1, 0)),
    ((2, 1, 3, 1, 2), (4, 3, 2, 1, 0), (4, 3, 2, 1, 0)),
]


@pytest.mark.parametrize(("shape", "order", "full"), CASES)
def test_values_and_gradient(shape: tuple[int, ...], order: tuple[int, ...], full: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    run = set_up_layer(permute_layer(*order), [x])
    (y,) = run.forward()
    assert y.shape == tuple(shape[axis] for axis in full)
    for place in np.ndindex(*y.shape):
        source = [0] * len(shape)
        for axis, index in zip(full, place, strict=True):
            source[axis] = index
        assert y[place] == x[tuple(source)]
    check_gradient(permute_layer(*order), [x])


def test_the_natural_order_shares_memory() -> None:
    run = set_up_layer(permute_layer(0, 1), [np.ones((2, 3))])
    assert run.tops[0].data_memory is run.bottoms[0].data_memory
    run.bottoms[0].reshape(5, 4)
    run.layer.reshape(run.bottoms, run.tops)
    assert run.tops[0].shape == (5, 4)
    assert run.tops[0].data_memory is run.bottoms[0].data_memory


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ((0, 4), ShapeMismatchError, r"names axis 4, but bottom\[0\] 'x' \(2, 3\) has 2 axes"),
        ((1, 1), LayerError, "axis 1 more than once"),
    ],
)
def test_wrong_orders(order: tuple[int, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        set_up_layer(permute_layer(*order), [np.ones((2, 3))])


def test_wrong_uses() -> None:
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(permute_layer(1, 0), [np.ones((2, 3))], in_place=True)
    run = set_up_layer(permute_layer(1, 0), [np.ones((2, 3))])
    run.bottoms[0].reshape(2, 3, 4)
    with pytest.raises(ShapeMismatchError, match=r"\(2, 3, 4\).*for 2 axes"):
        run.layer.reshape(run.bottoms, run.tops)
