from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer


def shuffle_layer(group: int) -> str:
    return f'type: "ShuffleChannel" bottom: "x" shuffle_channel_param {{ group: {group} }}'


@pytest.mark.parametrize(
    ("shape", "group"), [((2, 6, 3, 2), 2), ((2, 6, 3, 2), 3), ((1, 4, 1, 1), 4), ((3, 4), 2), ((2, 5, 2), 1)]
)
def test_values_and_gradient(shape: tuple[int, ...], group: int) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    (y,) = set_up_layer(shuffle_layer(group), [x]).forward()
    each = shape[1] // group
    for g in range(group):
        for i in range(each):
            assert np.array_equal(y[:, i * group + g], x[:, g * each + i])
    check_gradient(shuffle_layer(group), [x])


def test_wrong_uses() -> None:
    with pytest.raises(ShapeMismatchError, match=r"the 6 channels of bottom\[0\] 'x' .*group: 4"):
        set_up_layer(shuffle_layer(4), [np.ones((2, 6, 3))])
    with pytest.raises(ShapeMismatchError, match="group: 0"):
        set_up_layer(shuffle_layer(0), [np.ones((2, 6, 3))])
    with pytest.raises(ShapeMismatchError, match=r"it needs \(N, C, ...\)"):
        set_up_layer(shuffle_layer(2), [np.ones(4)])
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(shuffle_layer(2), [np.ones((1, 4))], in_place=True)
