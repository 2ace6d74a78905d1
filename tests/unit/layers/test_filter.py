from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case
from tests.unit.net.build import build

LAYER = 'type: "Filter"'


def test_golden() -> None:
    run_golden_case("filter")


@pytest.mark.parametrize("selector", [[1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, -2, 0, 0.5]], ids=str)
@pytest.mark.parametrize("shapes", [[(5,)], [(5, 3, 2), (5, 1)], [(5, 2, 3, 4), (5,), (5, 1, 1)]], ids=str)
def test_values_and_gradient(shapes: list[tuple[int, ...]], selector: list[float]) -> None:
    rng = np.random.default_rng(0)
    data = [rng.normal(size=shape) for shape in shapes]
    bottoms = [*data, np.array(selector).reshape(5, 1, 1)]
    run = set_up_layer(LAYER, bottoms, top_count=len(data))
    for blob, values in zip(run.tops, data, strict=True):
        assert blob.shape == values.shape  # nothing is known yet
    for y, values in zip(run.forward(), data, strict=True):
        expected = [row for row, chosen in zip(values, selector, strict=True) if chosen]
        assert y.shape == (len(expected), *values.shape[1:])
        assert np.array_equal(y.reshape(-1), np.array(expected).reshape(-1))

    def after_one_pass(run: object) -> None:
        run.forward()  # type: ignore[attr-defined]

    check_gradient(LAYER, bottoms, propagate=[*[True] * len(data), False], top_count=len(data), prepare=after_one_pass)


def test_the_next_layer_follows_the_number_of_items() -> None:
    net = build(
        """
        layer { name: "in" type: "Input" top: "x" top: "s" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
        layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "y" }
        layer { name: "p" type: "Power" bottom: "y" top: "z" power_param { scale: 2 } }
        """
    )
    net.blobs["x"].data[...] = np.arange(12).reshape(4, 3)
    for selector in ([0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]):
        net.blobs["s"].data[...] = selector
        net.forward()
        expected = 2 * np.arange(12).reshape(4, 3)[np.array(selector, bool)]
        assert np.array_equal(net.blobs["z"].data, expected)


def test_reshape_between_passes() -> None:
    run = set_up_layer(LAYER, [np.ones((3, 2)), np.array([1.0, 0, 1])])
    run.forward()
    for blob, shape in zip(run.bottoms, ((4, 5), (4,)), strict=True):
        blob.reshape(*shape)
        blob.data[...] = 1
    run.layer.reshape(run.bottoms, run.tops)
    assert run.tops[0].shape == (2, 5)
    assert run.forward()[0].shape == (4, 5)


def test_refuses() -> None:
    with pytest.raises(
        ShapeMismatchError, match=r"bottom\[1\] .*the selector, is \(2, 3\); all its axes but the first"
    ):
        set_up_layer(LAYER, [np.zeros((2, 3)), np.zeros((2, 3))])
    with pytest.raises(ShapeMismatchError, match=r"bottom\[0\] .* is \(2, 3\); bottom\[1\] .* needs 4 items"):
        set_up_layer(LAYER, [np.zeros((2, 3)), np.zeros(4)])
    with pytest.raises(LayerError, match="given are 2 bottoms and 2 tops"):
        set_up_layer(LAYER, [np.zeros((2, 3)), np.zeros(2)], top_count=2)
    run = set_up_layer(LAYER, [np.zeros((2, 3)), np.zeros(2)])
    run.forward()
    with pytest.raises(LayerError, match=r"bottom\[1\] .* selects and has no gradient"):
        run.layer.backward(run.tops, [True, True], run.bottoms)
    assert [run.layer.allow_force_backward(index) for index in range(2)] == [True, False]
