from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def flatten_layer(fields: str = "") -> str:
    return f'type: "Flatten" bottom: "x" flatten_param {{ {fields} }}'


@pytest.mark.parametrize("name", golden_names("flatten") or ["flatten"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", (2, 60)),
        ("axis: 0", (120,)),
        ("axis: 2", (2, 3, 20)),
        ("axis: 1 end_axis: 2", (2, 12, 5)),
        ("axis: 0 end_axis: -2", (24, 5)),
        ("axis: -1", (2, 3, 4, 5)),
    ],
)
def test_values_and_gradient(fields: str, expected: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    check_gradient(flatten_layer(fields), [x])
    run = set_up_layer(flatten_layer(fields), [x])
    assert np.array_equal(run.forward()[0], x.reshape(expected))
    assert np.shares_memory(run.tops[0].data, run.bottoms[0].data)
    assert np.shares_memory(run.tops[0].diff, run.bottoms[0].diff)


def test_reshape_to_another_batch() -> None:
    run = set_up_layer(flatten_layer(), [np.zeros((2, 3, 4))])
    for batch in (5, 1):
        run.bottoms[0].reshape(batch, 3, 4)
        run.layer.reshape(run.bottoms, run.tops)
        run.bottoms[0].data[...] = batch
        assert run.forward()[0].shape == (batch, 12)
        assert np.all(run.tops[0].data == batch)


def test_memory_moved_by_a_net_is_copied() -> None:
    run = set_up_layer(flatten_layer(), [np.ones((2, 3, 4))])
    other = set_up_layer(flatten_layer(), [np.ones((2, 3, 4))]).tops[0]
    run.tops[0].use_memory(data=other.data_memory, diff=other.diff_memory)
    run.bottoms[0].data[...] = 3
    assert np.all(run.forward()[0] == 3)
    run.tops[0].diff[...] = 5
    run.layer.backward(run.tops, [True], run.bottoms)
    assert np.all(run.bottoms[0].diff == 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [("axis: 3", "axis is 3"), ("end_axis: -4", "end_axis is -4"), ("axis: 2 end_axis: 0", "behind")],
)
def test_wrong_axes(fields: str, message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=rf"\(Flatten\).*{message}.*'x'.*\(2, 3, 4\)"):
        set_up_layer(flatten_layer(fields), [np.zeros((2, 3, 4))])


def test_in_place_is_refused() -> None:
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(flatten_layer(), [np.zeros((2, 2))], in_place=True)
