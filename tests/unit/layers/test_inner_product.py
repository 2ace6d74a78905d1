from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def layer(settings: str) -> str:
    return f'name: "ip1" type: "InnerProduct" inner_product_param {{ {settings} }}'


@pytest.mark.parametrize("name", golden_names("inner_product"))
def test_agrees_with_caffe(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert len(golden_names("inner_product")) >= 3


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((1, 1), "num_output: 1"),
        ((3, 2, 4, 2), "num_output: 5"),
        ((3, 2, 4, 2), "num_output: 5 transpose: true"),
        ((2, 3, 4), "num_output: 2 axis: 2 bias_term: false"),
        ((2, 3, 4), "num_output: 2 axis: -1 transpose: true"),
        ((2, 3, 4), "num_output: 3 axis: 0"),
    ],
)
def test_gradients(shape: tuple[int, ...], settings: str) -> None:
    check_gradient(layer(settings), [np.random.default_rng(1).normal(size=shape)])


def test_closed_form_and_shapes() -> None:
    run = set_up_layer(layer("num_output: 2 axis: 2"), [np.arange(24.0).reshape(2, 3, 4)])
    run.layer.blobs[0].data[...] = [[1, 1, 1, 1], [0, 0, 0, 2]]
    run.layer.blobs[1].data[...] = [10, 20]
    (top,) = run.forward()
    assert top.shape == (2, 3, 2)
    assert top[0, 0].tolist() == [0 + 1 + 2 + 3 + 10, 2 * 3 + 20]
    assert top[1, 2].tolist() == [20 + 21 + 22 + 23 + 10, 2 * 23 + 20]


@pytest.mark.parametrize(("transpose", "shape"), [("false", (3, 8)), ("true", (8, 3))])
def test_weights_shape(transpose: str, shape: tuple[int, ...]) -> None:
    run = set_up_layer(layer(f"num_output: 3 transpose: {transpose}"), [np.zeros((5, 2, 4))])
    assert [blob.shape for blob in run.layer.blobs] == [shape, (3,)]


def test_refuses() -> None:
    with pytest.raises(LayerError, match=r"layer 'ip1' \(InnerProduct\): .*num_output"):
        set_up_layer(layer(""), [np.zeros((2, 3))])
    with pytest.raises(ShapeMismatchError, match="axis is 2"):
        set_up_layer(layer("num_output: 2 axis: 2"), [np.zeros((2, 3))])
    run = set_up_layer(layer("num_output: 2"), [np.zeros((2, 3))])
    run.bottoms[0].reshape(2, 4)
    with pytest.raises(ShapeMismatchError, match=r"\(2, 4\).*4 values.*\(2, 3\) take 3"):
        run.layer.reshape(run.bottoms, run.tops)
