from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError
from tests.gradient_check import check_gradient, set_up_layer


def relu6_layer(slope: float = 0) -> str:
    return f'type: "ReLU6" bottom: "x" relu6_param {{ negative_slope: {slope} }}'


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("slope", [0, 0.1, 1.5])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1,), (1, 1, 7, 3)])
def test_values_and_gradient(shape: tuple[int, ...], slope: float, in_place: bool) -> None:
    x = np.random.default_rng(0).normal(3, 5, size=shape)
    (y,) = set_up_layer(relu6_layer(slope), [x], in_place=in_place).forward()
    expected = [6.0 if value > 6 else value if value > 0 else slope * value for value in x.reshape(-1).tolist()]
    np.testing.assert_allclose(y.reshape(-1), expected, rtol=1e-6)
    check_gradient(relu6_layer(slope), [x], kinks=(0, 6), in_place=in_place)


def test_the_gradient_is_zero_at_both_ends() -> None:
    run = set_up_layer(relu6_layer(), [np.array([-1.0, 0.0, 3.0, 6.0, 7.0])])
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert run.bottoms[0].diff.tolist() == [0, 0, 1, 0, 0]


def test_negative_slopes() -> None:
    check_gradient(relu6_layer(-0.5), [np.random.default_rng(1).normal(size=(3, 4))], kinks=(0, 6))
    with pytest.raises(LayerError, match="in place with negative_slope -0.5"):
        set_up_layer(relu6_layer(-0.5), [np.ones(3)], in_place=True)
