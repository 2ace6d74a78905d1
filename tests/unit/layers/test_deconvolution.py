from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.oracles import convolve_gradients
from tests.unit.layers.golden import golden_names, run_golden_case

THREE_AXES = "kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 1 stride: 2 stride: 1"
CASES = [
    ((1, 1, 1, 1), "num_output: 1 kernel_size: 1", (1, 1, 1, 1)),
    ((2, 3, 3, 4), "num_output: 4 kernel_size: 3 pad: 1 stride: 2", (2, 4, 5, 7)),
    ((9, 2, 3, 2), "num_output: 3 kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0", (9, 3, 2, 5)),
    ((2, 4, 3, 3), "num_output: 6 group: 2 kernel_size: 3 dilation: 2 pad: 1", (2, 6, 5, 5)),
    ((2, 4, 3, 9), "num_output: 4 group: 4 kernel_size: 4 stride: 2 pad: 1", (2, 4, 6, 18)),
    ((2, 3, 4, 20), "num_output: 2 kernel_size: 1 bias_term: false", (2, 2, 4, 20)),
    ((2, 2, 3, 3), "num_output: 2 kernel_size: 1 stride: 3", (2, 2, 7, 7)),
    ((3, 2, 4), "num_output: 2 kernel_size: 3 pad: 2", (3, 2, 2)),
    ((2, 2, 2, 3, 2), f"num_output: 2 {THREE_AXES}", (2, 2, 3, 7, 2)),
    ((2, 3), "num_output: 2", (2, 2)),
    ((2, 3, 2, 3, 2), "num_output: 2 axis: 2 kernel_size: 3", (2, 3, 2, 5, 4)),
    ((2, 3, 2, 3), "num_output: 2 axis: -3 kernel_size: 3 pad: 1", (2, 2, 2, 3)),
]


def layer(settings: str) -> str:
    return f'name: "up" type: "Deconvolution" bottom: "x" convolution_param {{ {settings} }}'


@pytest.mark.parametrize("name", golden_names("deconv"))
def test_agrees_with_caffe(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert len(golden_names("deconv")) == 3


@pytest.mark.parametrize(("shape", "settings", "top_shape"), CASES)
def test_gradients(shape: tuple[int, ...], settings: str, top_shape: tuple[int, ...]) -> None:
    run = check_gradient(layer(settings), [np.random.default_rng(1).normal(size=shape)])
    assert run.tops[0].shape == top_shape


def test_gradients_of_several_bottoms_add_up_in_the_shared_weights() -> None:
    bottoms = [np.random.default_rng(2).normal(size=(2, 2, 3, 4)) for _ in range(3)]
    check_gradient(layer("num_output: 3 kernel_size: 3"), bottoms, propagate=[True, False, True])


@pytest.mark.parametrize(("shape", "settings", "top_shape"), CASES)
def test_is_the_gradient_of_a_convolution(shape: tuple[int, ...], settings: str, top_shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=shape)
    run = set_up_layer(layer(settings), [x])
    for blob in run.layer.blobs:
        blob.data[...] = rng.normal(size=blob.shape)
    (y,) = run.forward()
    sliding, axis = run.layer._sliding, run.layer._axis  # type: ignore[attr-defined]
    weights = run.layer.blobs[0].data
    expected, _ = convolve_gradients(
        np.zeros((int(np.prod(top_shape[:axis])), *top_shape[axis:])),
        weights,
        x.reshape(-1, *shape[axis:]),
        sliding.stride,
        sliding.pad,
        sliding.dilation,
        run.layer.parameter.convolution_param.group,
    )
    if len(run.layer.blobs) > 1:
        expected += run.layer.blobs[1].data.reshape(-1, *(1,) * (expected.ndim - 2))
    np.testing.assert_allclose(y, expected.reshape(top_shape), atol=1e-12)


def test_bilinear_filler_enlarges_smoothly() -> None:
    settings = (
        "num_output: 2 group: 2 kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: 'bilinear' }"
    )
    (y,) = set_up_layer(layer(settings), [np.ones((1, 2, 4, 5))]).forward()
    assert y.shape == (1, 2, 8, 10)
    np.testing.assert_allclose(y[:, :, 1:-1, 1:-1], 1)


def test_blobs() -> None:
    blobs = set_up_layer(layer("num_output: 6 group: 3 kernel_h: 2 kernel_w: 3"), [np.zeros((4, 9, 8, 7))]).layer.blobs
    assert [blob.shape for blob in blobs] == [(9, 2, 2, 3), (6,)]


def test_frozen_blobs_get_no_gradient() -> None:
    run = set_up_layer(layer("num_output: 2 kernel_size: 2"), [np.ones((1, 1, 3, 3))])
    run.layer.param_propagate_down = [False, True]
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [False], run.bottoms)
    assert not run.layer.blobs[0].diff.any()
    assert run.layer.blobs[1].diff.tolist() == [16, 16]


def test_reshape_to_another_image() -> None:
    run = set_up_layer(
        layer("num_output: 2 kernel_size: 3 stride: 2 weight_filler { value: 1 }"), [np.ones((2, 3, 5, 5))]
    )
    run.bottoms[0].reshape(1, 3, 2, 4)
    run.bottoms[0].data[...] = 1
    run.layer.reshape(run.bottoms, run.tops)
    (y,) = run.forward()
    assert y.shape == (1, 2, 5, 9)
    assert y.sum() == pytest.approx(2 * 3 * 8 * 9)  # every value of the bottom adds 9 ones to each output
    run.bottoms[0].reshape(1, 4, 2, 4)
    with pytest.raises(ShapeMismatchError, match=r"bottom\[0\] 'x' has become \(1, 4, 2, 4\).*\(3, 2, 3, 3\)"):
        run.layer.reshape(run.bottoms, run.tops)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("kernel_size: 3", "num_output must be given"),
        ("num_output: 2", "give kernel_size, or kernel_h and kernel_w"),
        ("num_output: 2 kernel_size: 3 stride: 0", "at least 1"),
        ("num_output: 2 kernel_size: 1 pad: 3", r"pad \(3, 3\) takes away the whole top, \(0, -1\): bottom\[0\] 'x'"),
        ("num_output: 3 kernel_size: 3 group: 2", r"3 channels of bottom\[0\].*group: 2"),
        ("num_output: 4 kernel_size: 3 group: 3", "num_output 4.*group: 3"),
    ],
)
def test_refuses(settings: str, message: str) -> None:
    with pytest.raises(LayerError, match=rf"layer 'up' \(Deconvolution\): .*{message}"):
        set_up_layer(layer(settings), [np.zeros((1, 3, 6, 5))])
