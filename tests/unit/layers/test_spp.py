from __future__ import annotations

import math

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from paratrain.proto import TEST
from tests.gradient_check import check_gradient, distinct_values, set_up_layer
from tests.unit.layers.golden import run_golden_case


def layer(height: int, method: str = "MAX") -> str:
    return f'name: "spp" type: "SPP" bottom: "x" spp_param {{ pyramid_height: {height} pool: {method} }}'


def test_golden() -> None:
    run_golden_case("spp")


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(
    ("shape", "height"), [((2, 3, 9, 7), 3), ((1, 1, 1, 1), 1), ((2, 2, 5, 4), 2), ((3, 1, 4, 6), 1), ((1, 2, 8, 8), 4)]
)
def test_values_and_gradient(shape: tuple[int, ...], height: int, method: str) -> None:
    x = distinct_values(shape, np.random.default_rng(0))
    check_gradient(layer(height, method), [x])
    (y,) = set_up_layer(layer(height, method), [x]).forward()
    parts = []
    for bins in (2**level for level in range(height)):
        kernel = [math.ceil(size / bins) for size in shape[2:]]
        pad = [math.ceil((k * bins - size) / 2) for k, size in zip(kernel, shape[2:], strict=True)]
        text = (
            f'type: "Pooling" pooling_param {{ pool: {method} kernel_h: {kernel[0]} kernel_w: {kernel[1]} '
            f"stride_h: {kernel[0]} stride_w: {kernel[1]} pad_h: {pad[0]} pad_w: {pad[1]} }}"
        )
        (part,) = set_up_layer(text, [x]).forward()
        assert part.shape == (*shape[:2], bins, bins)
        parts.append(part.reshape(shape[0], -1))
    if height == 1:
        assert y.shape == (*shape[:2], 1, 1)
    np.testing.assert_allclose(y.reshape(shape[0], -1), np.concatenate(parts, axis=1))


def test_the_count_of_values_does_not_depend_on_the_image() -> None:
    run = set_up_layer(layer(3), [np.ones((2, 3, 9, 7))])
    for shape in ((2, 3, 16, 12), (4, 3, 16, 12), (1, 3, 4, 4)):
        run.bottoms[0].reshape(*shape)
        x = distinct_values(shape, np.random.default_rng(1))
        run.bottoms[0].data[...] = x
        run.layer.reshape(run.bottoms, run.tops)
        (y,) = run.forward()
        assert y.shape == (shape[0], 3 * 21)
        np.testing.assert_array_equal(y, set_up_layer(layer(3), [x]).forward()[0])
        run.tops[0].diff[...] = 1
        run.layer.backward(run.tops, [True], run.bottoms)
        assert run.bottoms[0].diff.sum() == y.size


def test_stochastic() -> None:
    x = np.random.default_rng(2).uniform(1, 2, size=(3, 2, 8, 4))
    run = set_up_layer(layer(3, "STOCHASTIC"), [x])
    (y,) = run.forward()
    assert set(y.ravel()) <= set(x.ravel())
    finest = y[:, -32:].reshape(3, 2, 4, 4)
    assert np.all((finest == x[:, :, ::2]) | (finest == x[:, :, 1::2]))
    check_gradient(layer(3, "STOCHASTIC"), [x], phase=TEST)
    with pytest.raises(LayerError, match="STOCHASTIC takes pad 0"):
        set_up_layer(layer(3, "STOCHASTIC"), [np.ones((1, 1, 9, 7))])


def test_refuses() -> None:
    with pytest.raises(LayerError, match=r"layer 'spp' \(SPP\): spp_param.pyramid_height must be given"):
        set_up_layer('name: "spp" type: "SPP"', [np.ones((1, 1, 4, 4))])
    with pytest.raises(ShapeMismatchError, match=r"bottom\[0\] 'x' is \(2, 3, 4\); SPP takes images"):
        set_up_layer(layer(2), [np.ones((2, 3, 4))])
    with pytest.raises(
        ShapeMismatchError, match=r"\(1, 1, 5, 8\) cannot be cut into the 4 x 4 .* kernel would be \(2, 2\)"
    ):
        set_up_layer(layer(3), [np.ones((1, 1, 5, 8))])
