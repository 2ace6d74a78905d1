from __future__ import annotations

import itertools

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case

CASES = [
    ((1, 1, 1, 1), "kernel_size: 1"),
    ((2, 3, 5, 4), "kernel_size: 3 pad: 1 stride: 2"),
    ((3, 2, 6, 5), "kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 2"),
    ((2, 1, 7, 6), "kernel_size: 3 dilation: 2 pad: 1 force_nd_im2col: true"),
    ((2, 3, 4, 3), "kernel_size: 1 stride: 2"),
    ((3, 2, 4), "kernel_size: 3 pad: 2"),
    ((2, 2, 3, 4, 3), "kernel_size: 2 kernel_size: 3 kernel_size: 1 pad: 0 pad: 1 pad: 0"),
    ((2, 3), ""),
    ((2, 3, 2, 4, 3), "axis: 2 kernel_size: 2"),
    ((2, 3, 4), "axis: 0 kernel_size: 2"),
    ((2, 3, 4, 4), "axis: -3 kernel_size: 3 pad: 1"),
]


def layer(settings: str) -> str:
    return f'type: "Im2col" bottom: "x" convolution_param {{ {settings} }}'


def test_golden() -> None:
    run_golden_case("im2col")


@pytest.mark.parametrize(("shape", "settings"), CASES)
def test_values_and_gradient(shape: tuple[int, ...], settings: str) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    check_gradient(layer(settings), [x])
    run = set_up_layer(layer(settings), [x])
    (y,) = run.forward()
    sliding, axis = run.layer._sliding, run.layer._axis  # type: ignore[attr-defined]
    images, columns = x.reshape(-1, *shape[axis:]), y.reshape(-1, *y.shape[axis:])
    assert y.shape[:axis] == shape[:axis]
    offsets = list(itertools.product(*(range(size) for size in sliding.kernel)))
    assert columns.shape[1] == images.shape[1] * len(offsets)
    for n, channel, *place in np.ndindex(*columns.shape):
        c, offset = divmod(channel, len(offsets))
        steps = zip(place, offsets[offset], sliding.stride, sliding.pad, sliding.dilation, strict=True)
        pixel = [p * stride - pad + k * dilation for p, k, stride, pad, dilation in steps]
        inside = all(0 <= p < size for p, size in zip(pixel, images.shape[2:], strict=True))
        assert columns[(n, channel, *place)] == (images[(n, c, *pixel)] if inside else 0)


def test_is_what_a_convolution_multiplies() -> None:
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(4, 3, 3, 2))
    window = "kernel_h: 3 kernel_w: 2 stride: 2 pad: 1"
    run = set_up_layer(f'type: "Convolution" convolution_param {{ num_output: 4 {window} bias_term: false }}', [x])
    run.layer.blobs[0].data[...] = weights
    (columns,) = set_up_layer(layer(window), [x]).forward()
    np.testing.assert_allclose(
        run.forward()[0], np.einsum("ok,nkhw->nohw", weights.reshape(4, -1), columns), atol=1e-12
    )


def test_reshape_to_another_image() -> None:
    run = set_up_layer(layer("kernel_size: 2"), [np.ones((1, 2, 3, 3))])
    run.bottoms[0].reshape(3, 1, 2, 5)
    run.bottoms[0].data[...] = 2
    run.layer.reshape(run.bottoms, run.tops)
    (y,) = run.forward()
    assert y.shape == (3, 4, 1, 4)
    assert np.all(y == 2)
    run.bottoms[0].reshape(3, 2, 5)
    with pytest.raises(ShapeMismatchError, match=r"'x' has become \(3, 2, 5\); the kernel \(2, 2\) needs 2 axes"):
        run.layer.reshape(run.bottoms, run.tops)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "give kernel_size, or kernel_h and kernel_w"),
        ("kernel_size: 0", "kernel_size is .* at least 1"),
        (
            "kernel_size: 9 pad: 1",
            r"the kernel \(9, 9\) .* is larger than bottom\[0\] 'x' \(1, 3, 6, 5\), padded by \(1, 1\)",
        ),
        ("kernel_size: 3 axis: 4", "axis is 4"),
    ],
)
def test_refuses(settings: str, message: str) -> None:
    with pytest.raises(LayerError, match=rf"layer 'layer' \(Im2col\): .*{message}"):
        set_up_layer(layer(settings), [np.zeros((1, 3, 6, 5))])
