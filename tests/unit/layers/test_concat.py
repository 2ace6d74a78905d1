from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def concat_layer(fields: str = "") -> str:
    return f'type: "Concat" bottom: "a" bottom: "b" top: "c" concat_param {{ {fields} }}'


@pytest.mark.parametrize("name", golden_names("concat") or ["concat"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize(
    ("shapes", "fields", "axis"),
    [
        ([(2, 3, 4, 5), (2, 1, 4, 5)], "", 1),
        ([(2, 3), (2, 1), (2, 4)], "axis: -1", 1),
        ([(2, 3, 1), (1, 3, 1)], "axis: 0", 0),
        ([(2, 3, 4), (2, 3, 2)], "concat_dim: 2", 2),
        ([(2, 3, 4)], "", 1),
        ([(3,), (2,)], "axis: 0", 0),
    ],
)
def test_values_and_gradient(shapes: list[tuple[int, ...]], fields: str, axis: int) -> None:
    rng = np.random.default_rng(0)
    bottoms = [rng.normal(size=shape) for shape in shapes]
    check_gradient(concat_layer(fields), bottoms)
    run = set_up_layer(concat_layer(fields), bottoms)
    assert np.array_equal(run.forward()[0], np.concatenate(bottoms, axis=axis))


def test_only_wanted_gradients_are_written() -> None:
    check_gradient(concat_layer(), [np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 1))], propagate=[True, False, True])


@pytest.mark.parametrize(
    ("shapes", "fields", "message"),
    [
        ([(2, 3), (3, 3)], "", r"'layer' \(Concat\): bottom\[1\] 'b' \(3, 3\).*'a' \(2, 3\)"),
        ([(2, 3), (2, 3, 1)], "", r"\(2, 3, 1\)"),
        ([(2, 3), (2, 3)], "axis: 2", "axis is 2"),
        ([(2, 3), (2, 3)], "concat_dim: 2", "concat_dim is 2"),
    ],
)
def test_wrong_shapes(shapes: list[tuple[int, ...]], fields: str, message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        set_up_layer(concat_layer(fields), [np.zeros(shape) for shape in shapes])


def test_axis_and_its_old_name_together() -> None:
    with pytest.raises(LayerError, match="both axis and concat_dim"):
        set_up_layer(concat_layer("axis: 1 concat_dim: 1"), [np.zeros((2, 2))])


def test_in_place_is_refused() -> None:
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(concat_layer(), [np.zeros((2, 2)), np.zeros((2, 2))], in_place=True)
