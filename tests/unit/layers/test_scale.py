from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

SHAPE = (2, 3, 4, 5)


def scale_layer(fields: str = "") -> str:
    return f'type: "Scale" bottom: "x" scale_param {{ {fields} }}'


@pytest.mark.parametrize("name", golden_names("scale") or ["scale"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("fields", "shape", "first", "last"),
    [
        ("", SHAPE, 1, 2),
        ("axis: 0", SHAPE, 0, 1),
        ("axis: 0 num_axes: 2", SHAPE, 0, 2),
        ("axis: 2 num_axes: -1", SHAPE, 2, 4),
        ("axis: -1", SHAPE, 3, 4),
        ("num_axes: 0", SHAPE, 0, 0),
        ("", (4, 3), 1, 2),
        ("", (1, 1), 1, 2),
        ("axis: 0 num_axes: -1", (1,), 0, 1),
    ],
)
def test_values_and_gradient(
    fields: str, shape: tuple[int, ...], first: int, last: int, bias: bool, in_place: bool
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    parameters = [rng.normal(size=shape[first:last]) for _ in range(1 + bias)]
    text = scale_layer(f"{fields} bias_term: {str(bias).lower()}")
    check_gradient(text, [x], parameters=parameters, in_place=in_place)
    run = set_up_layer(text, [x], in_place=in_place)
    for blob, values in zip(run.layer.blobs, parameters, strict=True):
        assert blob.shape == values.shape
        blob.data[...] = values
    spread = [values.reshape(values.shape + (1,) * (len(shape) - last)) for values in parameters]
    np.testing.assert_allclose(run.forward()[0], x * spread[0] + (spread[1] if bias else 0), rtol=1e-12)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("bias", ["", "bias_term: true"])
@pytest.mark.parametrize(
    ("fields", "factor"), [("", (3, 4)), ("axis: 0", (2,)), ("axis: -1", (5,)), ("axis: 0", SHAPE), ("", ())]
)
def test_two_bottoms(fields: str, factor: tuple[int, ...], bias: str, in_place: bool) -> None:
    rng = np.random.default_rng(1)
    bottoms = [rng.normal(size=SHAPE), rng.normal(size=factor)]
    for propagate in ([True, True], [True, False], [False, True]):
        check_gradient(scale_layer(f"{fields} {bias}"), bottoms, propagate=propagate, in_place=in_place)


def test_fillers() -> None:
    blobs = set_up_layer(scale_layer("bias_term: true"), [np.zeros((2, 3))]).layer.blobs
    assert [blob.data.tolist() for blob in blobs] == [[1, 1, 1], [0, 0, 0]]
    fields = "filler { value: 2 } bias_term: true bias_filler { type: 'uniform' min: 5 max: 6 }"
    blobs = set_up_layer(scale_layer(fields), [np.zeros((2, 3))]).layer.blobs
    assert blobs[0].data.tolist() == [2, 2, 2]
    assert np.all((blobs[1].data >= 5) & (blobs[1].data <= 6))
    assert len(set(blobs[1].data.tolist())) == 3


def test_parameters_that_do_not_learn_are_left_alone() -> None:
    run = set_up_layer(scale_layer("bias_term: true"), [np.ones((2, 3))])
    run.forward()
    run.layer.param_propagate_down = [False, False]
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert not any(blob.diff.any() for blob in run.layer.blobs)


def test_reshape_to_another_batch() -> None:
    run = set_up_layer(scale_layer("filler { value: 3 }"), [np.ones((2, 3, 4))])
    run.bottoms[0].reshape(6, 3, 5)
    run.bottoms[0].data[...] = 2
    run.layer.reshape(run.bottoms, run.tops)
    (y,) = run.forward()
    assert y.shape == (6, 3, 5)
    assert np.all(y == 6)


@pytest.mark.parametrize(
    ("fields", "shapes", "message"),
    [
        ("axis: 2", [(2, 3)], r"axis is 2.*\(2, 3\)"),
        ("num_axes: 2", [(2, 3)], "num_axes is 2"),
        ("num_axes: -2", [(2, 3)], "num_axes is -2"),
        ("", [(2, 3, 4), (4,)], r"\(4,\) does not fit bottom\[0\] 'x' \(2, 3, 4\)"),
        ("", [(2, 3), (3, 1)], r"\(3, 1\) does not fit"),
    ],
)
def test_wrong_shapes(fields: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        set_up_layer(scale_layer(fields), [np.zeros(shape) for shape in shapes])


def test_another_number_of_channels_is_refused() -> None:
    run = set_up_layer(scale_layer(), [np.ones((2, 3))])
    run.bottoms[0].reshape(2, 4)
    with pytest.raises(ShapeMismatchError, match=r"factor \(3,\).*\(2, 4\)"):
        run.layer.reshape(run.bottoms, run.tops)


def test_unknown_filler_names_the_layer() -> None:
    with pytest.raises(LayerError, match=r"layer 'layer' \(Scale\): blob 0 .*unknown filler 'gausian'"):
        set_up_layer(scale_layer("filler { type: 'gausian' }"), [np.ones((2, 3))])
