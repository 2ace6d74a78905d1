from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case


def reshape_layer(dims: list[int], fields: str = "") -> str:
    shape = " ".join(f"dim: {dim}" for dim in dims)
    return f'type: "Reshape" bottom: "x" reshape_param {{ shape {{ {shape} }} {fields} }}'


def test_golden() -> None:
    run_golden_case("reshape")


@pytest.mark.parametrize(
    ("dims", "fields", "expected"),
    [
        ([2, 60], "", (2, 60)),
        ([0, -1], "", (2, 60)),
        ([0, 0, 10, -1], "", (2, 3, 10, 2)),
        ([-1], "", (120,)),
        ([4, 3], "axis: 1 num_axes: 2", (2, 4, 3, 5)),
        ([-1, 2], "axis: 1 num_axes: 2", (2, 6, 2, 5)),
        ([-1], "axis: -2", (2, 3, 4, 5)),
        ([20], "axis: -3", (2, 3, 20)),
        ([1], "axis: 1 num_axes: 0", (2, 1, 3, 4, 5)),
        ([1, 1], "axis: -1", (2, 3, 4, 5, 1, 1)),
        ([0, 12], "axis: 0 num_axes: 3", (2, 12, 5)),
        ([], "axis: 4", (2, 3, 4, 5)),
    ],
)
def test_values_and_gradient(dims: list[int], fields: str, expected: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    check_gradient(reshape_layer(dims, fields), [x])
    run = set_up_layer(reshape_layer(dims, fields), [x])
    assert np.array_equal(run.forward()[0], x.reshape(expected))
    assert np.shares_memory(run.tops[0].data, run.bottoms[0].data)
    assert np.shares_memory(run.tops[0].diff, run.bottoms[0].diff)


def test_one_value_becomes_a_blob_without_axes() -> None:
    run = set_up_layer(reshape_layer([]), [np.ones((1, 1))])
    assert run.forward()[0].shape == ()


def test_sizes_follow_the_batch() -> None:
    run = set_up_layer(reshape_layer([0, -1]), [np.zeros((2, 3, 4))])
    run.bottoms[0].reshape(7, 3, 4)
    run.layer.reshape(run.bottoms, run.tops)
    assert run.tops[0].shape == (7, 12)


@pytest.mark.parametrize(
    ("dims", "fields", "message"),
    [
        ([5, 5], "", r"'x' \(2, 3, 4\).*\(5, 5\) has 25 values instead of 24"),
        ([5, -1], "", "24 values cannot be shared out"),
        ([-1, -1], "", "2 dims of -1"),
        ([1, 1, 1, 0], "", "keep axis 3"),
        ([-2], "", "is -2"),
        ([24], "axis: 4", "axis is 4"),
        ([24], "axis: -5", "axis is -5"),
        ([24], "axis: 1 num_axes: 3", "num_axes is 3"),
        ([24], "num_axes: -2", "num_axes is -2"),
    ],
)
def test_wrong_settings(dims: list[int], fields: str, message: str) -> None:
    with pytest.raises(LayerError, match=rf"layer 'layer' \(Reshape\).*{message}"):
        set_up_layer(reshape_layer(dims, fields), [np.zeros((2, 3, 4))])


def test_in_place_is_refused() -> None:
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(reshape_layer([-1]), [np.zeros((2, 2))], in_place=True)
