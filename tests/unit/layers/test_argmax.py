from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def layer(fields: str = "") -> str:
    return f'type: "ArgMax" bottom: "x" argmax_param {{ {fields} }}'


def best(values: Any, count: int) -> list[tuple[float, int]]:
    """The highest (value, index), the larger index first among equals."""
    return sorted(((float(value), index) for index, value in enumerate(values)), reverse=True)[:count]


@pytest.mark.parametrize("name", golden_names("argmax"))
def test_golden(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert len(golden_names("argmax")) == 2


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 4), 0), ((3, 4, 5), 1), ((2, 5, 1, 3), 1), ((2, 2, 3), -1), ((3,), 0)]
)
def test_along_an_axis(shape: tuple[int, ...], axis: int, top_k: int, values: bool) -> None:
    x = np.random.default_rng(0).integers(0, 4, size=shape).astype(float)  # with many ties
    fields = f"axis: {axis} top_k: {top_k} out_max_val: {str(values).lower()}"
    (y,) = set_up_layer(layer(fields), [x]).forward()
    lines, found = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    assert found.shape == (*lines.shape[:-1], top_k)
    for place in np.ndindex(*lines.shape[:-1]):
        expected = best(lines[place], top_k)
        assert found[place].tolist() == [value if values else index for value, index in expected]


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("top_k", [1, 4])
@pytest.mark.parametrize(
    ("shape", "rest"), [((2, 5), ()), ((3, 4), ()), ((2, 3, 4), ()), ((2, 3, 2, 2), (1,)), ((1, 4, 1, 1, 2), (1, 1))]
)
def test_over_the_whole_item(shape: tuple[int, ...], rest: tuple[int, ...], top_k: int, values: bool) -> None:
    x = np.random.default_rng(1).integers(0, 3, size=shape).astype(float)
    (y,) = set_up_layer(layer(f"top_k: {top_k} out_max_val: {str(values).lower()}"), [x]).forward()
    assert y.shape == (shape[0], 1 + values, top_k, *rest)
    for item, found in zip(x.reshape(shape[0], -1), y.reshape(shape[0], 1 + values, top_k), strict=True):
        expected = best(item, top_k)
        assert found[0].tolist() == [index for _, index in expected]
        if values:
            assert found[1].tolist() == [value for value, _ in expected]


def test_the_last_of_equals_wins() -> None:
    (y,) = set_up_layer(layer(), [np.zeros((1, 7))]).forward()
    assert y.tolist() == [[[6]]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("top_k: 0", "top_k is 0; it must be from 1 to 12"),
        ("top_k: 13", r"top_k is 13; it must be from 1 to 12, the number of values of bottom\[0\] 'x' \(2, 3, 4\)"),
        ("top_k: 4 axis: 1", "top_k is 4; it must be from 1 to 3"),
        ("axis: 3", r"argmax_param.axis is 3.*\(2, 3, 4\)"),
    ],
)
def test_refuses(fields: str, message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        set_up_layer(layer(fields), [np.zeros((2, 3, 4))])


def test_has_no_gradient() -> None:
    run = set_up_layer(layer(), [np.zeros((2, 3))])
    run.layer.backward(run.tops, [False], run.bottoms)
    with pytest.raises(LayerError, match=r"\(ArgMax\): has no gradient, but bottom\[0\] 'x' wants one"):
        run.layer.backward(run.tops, [True], run.bottoms)
    assert not run.layer.allow_force_backward(0)
