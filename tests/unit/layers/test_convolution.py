from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.oracles import convolve
from tests.unit.layers.golden import golden_names, run_golden_case


def layer(settings: str) -> str:
    return f'name: "conv1" type: "Convolution" convolution_param {{ {settings} }}'


@pytest.mark.parametrize("name", golden_names("conv"))
def test_agrees_with_caffe(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert len(golden_names("conv")) >= 9


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((1, 1, 1, 1), "num_output: 1 kernel_size: 1"),
        ((2, 3, 5, 4), "num_output: 4 kernel_size: 3 pad: 1 stride: 2"),
        ((9, 2, 6, 5), "num_output: 3 kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 2"),
        ((2, 4, 7, 7), "num_output: 6 group: 2 kernel_size: 3 dilation: 2 pad: 1"),
        ((2, 4, 3, 18), "num_output: 4 group: 4 kernel_size: 3 pad: 1"),
        ((2, 3, 4, 20), "num_output: 2 kernel_size: 1 bias_term: false"),
        ((3, 2, 4), "num_output: 2 kernel_size: 3 pad: 2"),
        ((2, 2, 3, 4, 3), "num_output: 2 kernel_size: 2 kernel_size: 3 kernel_size: 1 pad: 0 pad: 1 pad: 0"),
        ((2, 3), "num_output: 2"),
        ((2, 3, 2, 4, 4), "num_output: 2 axis: 2 kernel_size: 3"),
        ((2, 3, 4, 4), "num_output: 2 axis: -3 kernel_size: 3 pad: 1"),
    ],
)
def test_gradients(shape: tuple[int, ...], settings: str) -> None:
    bottom = np.random.default_rng(1).normal(size=shape)
    check_gradient(layer(settings), [bottom])


def test_gradients_of_several_bottoms_add_up_in_the_shared_weights() -> None:
    rng = np.random.default_rng(2)
    bottoms = [rng.normal(size=(2, 2, 4, 4)) for _ in range(3)]
    check_gradient(layer("num_output: 3 kernel_size: 3"), bottoms)
    check_gradient(layer("num_output: 3 kernel_size: 3"), bottoms, propagate=[True, False, True])


def test_frozen_blobs_get_no_gradient() -> None:
    run = set_up_layer(layer("num_output: 2 kernel_size: 2"), [np.ones((1, 1, 3, 3))])
    run.layer.param_propagate_down = [False, True]
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [False], run.bottoms)
    assert not run.layer.blobs[0].diff.any()
    assert run.layer.blobs[1].diff.tolist() == [4, 4]


def test_shapes_of_blobs_and_tops() -> None:
    run = set_up_layer(
        layer("num_output: 6 group: 3 kernel_h: 2 kernel_w: 3 stride: 2 pad: 1"), [np.zeros((4, 9, 8, 7))]
    )
    assert [blob.shape for blob in run.layer.blobs] == [(6, 3, 2, 3), (6,)]
    assert run.tops[0].shape == (4, 6, 5, 4)
    assert not run.layer.blobs[0].data.any()  # without a filler: constant 0


def test_fillers_depend_on_seed_and_name_only() -> None:
    settings = (
        'num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.5 }'
    )
    first, second = (set_up_layer(layer(settings), [np.zeros((n, 3, 5, 5))]).layer.blobs for n in (1, 4))
    assert np.array_equal(first[0].data, second[0].data)
    assert first[0].data.std() > 0
    assert np.all(first[1].data == 0.5)


def test_reshape_to_another_batch_and_image() -> None:
    rng = np.random.default_rng(4)
    run = set_up_layer(layer('num_output: 2 kernel_size: 3 weight_filler { type: "xavier" }'), [np.zeros((2, 3, 5, 5))])
    bottom = rng.normal(size=(3, 3, 7, 4))
    run.bottoms[0].reshape(*bottom.shape)
    run.bottoms[0].data[...] = bottom
    run.layer.reshape(run.bottoms, run.tops)
    (top,) = run.forward()
    np.testing.assert_allclose(top, convolve(bottom, run.layer.blobs[0].data, (1, 1), (0, 0), (1, 1)), atol=1e-12)
    run.bottoms[0].reshape(3, 4, 7, 4)
    with pytest.raises(
        ShapeMismatchError, match=r"layer 'conv1' .*bottom\[0\] 'bottom0'.*\(3, 4, 7, 4\).*\(2, 3, 3, 3\)"
    ):
        run.layer.reshape(run.bottoms, run.tops)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("kernel_size: 3", "num_output must be given"),
        ("num_output: 2", "give kernel_size, or kernel_h and kernel_w"),
        ("num_output: 2 kernel_size: 3 kernel_h: 3", "not both"),
        ("num_output: 2 kernel_h: 3", "without its partner"),
        ("num_output: 2 kernel_size: 3 kernel_size: 3 kernel_size: 3", "given 3 times"),
        ("num_output: 2 kernel_size: 0", "at least 1"),
        ("num_output: 2 kernel_size: 3 stride: 0", "at least 1"),
        (
            "num_output: 2 kernel_size: 9 pad: 1",
            r"\(9, 9\).*larger than bottom\[0\].*\(1, 3, 6, 5\), padded to \(8, 7\)",
        ),
        ("num_output: 2 kernel_size: 3 dilation: 4", r"the kernel \(9, 9\)"),
        ("num_output: 3 kernel_size: 3 group: 2", r"3 channels of bottom\[0\].*\(1, 3, 6, 5\).*group: 2"),
        ("num_output: 4 kernel_size: 3 group: 3", "num_output 4.*group: 3"),
        ("num_output: 2 kernel_size: 3 group: 0", "group: 0"),
        ("num_output: 2 kernel_size: 3 axis: 4", "axis is 4"),
        ("num_output: 2 kernel_size: 3 axis: 2 kernel_h: 1", "not both"),
        ("num_output: 2 kernel_h: 3 kernel_w: 3 axis: 2", "needs two spatial axes"),
        ("num_output: 2 kernel_size: 3 relu: true", "add a ReLU layer"),
        ('num_output: 2 kernel_size: 3 weight_filler { type: "xavir" }', "'conv1'.*xavir"),
    ],
)
def test_refuses(settings: str, message: str) -> None:
    with pytest.raises(LayerError, match=message) as caught:
        set_up_layer(layer(settings), [np.zeros((1, 3, 6, 5))])
    assert "layer 'conv1' (Convolution)" in str(caught.value)


def test_refuses_bottoms_of_different_shapes() -> None:
    with pytest.raises(ShapeMismatchError, match=r"bottom\[1\].*\(1, 3, 6, 6\).*\(1, 3, 6, 5\)"):
        set_up_layer(layer("num_output: 2 kernel_size: 3"), [np.zeros((1, 3, 6, 5)), np.zeros((1, 3, 6, 6))])
