from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case

SHAPES = [(1, 1), (4, 3), (2, 1, 3), (2, 3, 4, 5), (1, 2, 1, 1)]


def layer(fields: str = "") -> str:
    return f'type: "PReLU" bottom: "x" prelu_param {{ {fields} }}'


def test_golden() -> None:
    run_golden_case("prelu")


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradient(shape: tuple[int, ...], shared: bool, in_place: bool) -> None:
    rng = np.random.default_rng(0)
    x, slopes = rng.normal(size=shape), rng.normal(size=() if shared else shape[1])
    text = layer(f"channel_shared: {str(shared).lower()}")
    check_gradient(text, [x], kinks=[0], parameters=[slopes], in_place=in_place)
    check_gradient(text, [x], kinks=[0], propagate=[False], parameters=[slopes])
    run = set_up_layer(text, [x], in_place=in_place)
    run.layer.blobs[0].data[...] = slopes
    (y,) = run.forward()
    for place in np.ndindex(*shape):
        slope = slopes if shared else slopes[place[1]]
        assert y[place] == pytest.approx(x[place] if x[place] > 0 else slope * x[place])


def test_gradient_at_zero_is_the_slope() -> None:
    run = set_up_layer(layer(), [np.zeros((1, 2))])
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert run.bottoms[0].diff.tolist() == [[0.25, 0.25]]


def test_blob_and_fillers() -> None:
    blob = set_up_layer(layer(), [np.zeros((2, 3, 4))]).layer.blobs[0]
    assert blob.data.tolist() == [0.25] * 3
    blob = set_up_layer(layer("channel_shared: true filler { value: 2 }"), [np.zeros((2, 3, 4))]).layer.blobs[0]
    assert blob.shape == () and blob.data == 2


def test_frozen_slopes_are_left_alone() -> None:
    run = set_up_layer(layer(), [np.full((2, 3), -1.0)])
    run.layer.param_propagate_down = [False]
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert not run.layer.blobs[0].diff.any()
    assert np.all(run.bottoms[0].diff == 0.25)


def test_refuses() -> None:
    with pytest.raises(ShapeMismatchError, match=r"bottom\[0\] 'x' is \(3,\); PReLU needs \(N, C, ...\)"):
        set_up_layer(layer(), [np.zeros(3)])
    run = set_up_layer(layer(), [np.zeros((2, 3))])
    run.bottoms[0].reshape(2, 4)
    with pytest.raises(ShapeMismatchError, match=r"\(2, 4\) has 4 channels; there are 3 slopes \(3,\)"):
        run.layer.reshape(run.bottoms, run.tops)
