from __future__ import annotations

import math

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer

SHAPES = [(2, 3, 4, 5), (1, 1, 1, 1), (3, 4), (2, 1, 3), (1, 5, 2, 1)]


def normalize_layer(across_spatial: bool, channel_shared: bool, fields: str = "") -> str:
    flags = f"across_spatial: {str(across_spatial).lower()} channel_shared: {str(channel_shared).lower()}"
    return f'type: "Normalize" bottom: "x" norm_param {{ {flags} {fields} }}'


@pytest.mark.parametrize("channel_shared", [False, True])
@pytest.mark.parametrize("across_spatial", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradient(shape: tuple[int, ...], across_spatial: bool, channel_shared: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    scale = rng.normal(size=() if channel_shared else (shape[1],))
    text = normalize_layer(across_spatial, channel_shared, "eps: 0.01")
    run = set_up_layer(text, [x])
    assert run.layer.blobs[0].shape == scale.shape
    run.layer.blobs[0].data[...] = scale
    (y,) = run.forward()
    flat, out = x.reshape(*shape[:2], -1), y.reshape(*shape[:2], -1)
    for n, c, s in np.ndindex(*flat.shape):
        squares = sum(
            flat[n, k, t] ** 2 for k in range(shape[1]) for t in range(flat.shape[2]) if across_spatial or t == s
        )
        factor = float(scale if channel_shared else scale[c])
        assert out[n, c, s] == pytest.approx(factor * flat[n, c, s] / math.sqrt(squares + 0.01), rel=1e-6)
    check_gradient(text, [x], parameters=[scale])


def test_fillers_and_defaults() -> None:
    run = set_up_layer('type: "Normalize"', [np.full((2, 3, 2, 2), 5.0)])
    assert run.layer.blobs[0].shape == ()
    np.testing.assert_allclose(run.forward()[0], 1 / math.sqrt(12))
    filled = set_up_layer(normalize_layer(False, False, "scale_filler { value: 20 }"), [np.ones((2, 3, 2, 2))])
    assert filled.layer.blobs[0].data.tolist() == [20, 20, 20]


def test_zeros_give_zeros() -> None:
    (y,) = set_up_layer(normalize_layer(False, True), [np.zeros((2, 3, 2, 2))], dtype=np.float32).forward()
    assert not y.any()


def test_a_scale_that_does_not_learn_is_left_alone() -> None:
    run = set_up_layer(normalize_layer(True, True), [np.ones((2, 3))])
    run.forward()
    run.layer.param_propagate_down = [False]
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert not run.layer.blobs[0].diff.any()


def test_wrong_uses() -> None:
    with pytest.raises(ShapeMismatchError, match=r"bottom\[0\] 'x' is \(4,\)"):
        set_up_layer(normalize_layer(True, True), [np.ones(4)])
    with pytest.raises(LayerError, match="eps is -1"):
        set_up_layer(normalize_layer(True, True, "eps: -1"), [np.ones((2, 3))])
    run = set_up_layer(normalize_layer(True, False), [np.ones((2, 3))])
    run.bottoms[0].reshape(2, 4)
    with pytest.raises(ShapeMismatchError, match=r"4 channels; the scale \(3,\)"):
        run.layer.reshape(run.bottoms, run.tops)
