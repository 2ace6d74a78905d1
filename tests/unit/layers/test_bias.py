from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

SHAPE = (2, 3, 4, 5)


def layer(fields: str = "") -> str:
    return f'type: "Bias" bottom: "x" bias_param {{ {fields} }}'


@pytest.mark.parametrize("name", golden_names("bias"))
def test_golden(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert golden_names("bias") == ["bias", "bias_two_bottoms"]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("fields", "shape", "first", "last"),
    [
        ("", SHAPE, 1, 2),
        ("axis: 0", SHAPE, 0, 1),
        ("axis: 0 num_axes: 2", SHAPE, 0, 2),
        ("axis: 2 num_axes: -1", SHAPE, 2, 4),
        ("axis: -1", SHAPE, 3, 4),
        ("num_axes: 0", SHAPE, 0, 0),
        ("num_axes: 0", (), 0, 0),
        ("", (1, 1), 1, 2),
        ("axis: 0 num_axes: -1", (1,), 0, 1),
    ],
)
def test_values_and_gradient(fields: str, shape: tuple[int, ...], first: int, last: int, in_place: bool) -> None:
    rng = np.random.default_rng(0)
    x, bias = rng.normal(size=shape), rng.normal(size=shape[first:last])
    check_gradient(layer(fields), [x], parameters=[bias], in_place=in_place)
    run = set_up_layer(layer(fields), [x], in_place=in_place)
    assert run.layer.blobs[0].shape == bias.shape
    assert not run.layer.blobs[0].data.any()
    run.layer.blobs[0].data[...] = bias
    np.testing.assert_allclose(run.forward()[0], x + bias.reshape(bias.shape + (1,) * (len(shape) - last)))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("fields", "bias"), [("", (3, 4)), ("axis: 0", (2,)), ("axis: -1", (5,)), ("axis: 0", SHAPE), ("", ())]
)
def test_two_bottoms(fields: str, bias: tuple[int, ...], in_place: bool) -> None:
    rng = np.random.default_rng(1)
    bottoms = [rng.normal(size=SHAPE), rng.normal(size=bias)]
    for propagate in ([True, True], [True, False], [False, True]):
        check_gradient(layer(fields), bottoms, propagate=propagate, in_place=in_place)
    assert not set_up_layer(layer(fields), bottoms).layer.blobs


def test_filler_and_frozen_bias() -> None:
    run = set_up_layer(layer("filler { type: 'uniform' min: 5 max: 6 }"), [np.zeros((2, 3))])
    assert np.all((run.layer.blobs[0].data >= 5) & (run.layer.blobs[0].data <= 6))
    run.layer.param_propagate_down = [False]
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert not run.layer.blobs[0].diff.any()


@pytest.mark.parametrize(
    ("fields", "shapes", "message"),
    [
        ("axis: 2", [(2, 3)], r"bias_param.axis is 2.*\(2, 3\)"),
        ("num_axes: 2", [(2, 3)], "num_axes is 2"),
        ("num_axes: -2", [(2, 3)], "num_axes is -2"),
        ("", [(2, 3, 4), (4,)], r"\(4,\) does not fit bottom\[0\] 'x' \(2, 3, 4\)"),
    ],
)
def test_wrong_shapes(fields: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        set_up_layer(layer(fields), [np.zeros(shape) for shape in shapes])


def test_the_bias_must_not_be_the_top() -> None:
    run = set_up_layer(layer(), [np.zeros((2, 3)), np.zeros(3)])
    with pytest.raises(LayerError, match=r"bottom\[1\] 'bottom1', the bias, must not also be the top"):
        run.layer.reshape(run.bottoms, [run.bottoms[1]])
