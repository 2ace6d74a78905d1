from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, distinct_values, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def layer(settings: str) -> str:
    return f'name: "pool1" type: "Pooling" pooling_param {{ {settings} }}'


@pytest.mark.parametrize("name", golden_names("pool"))
def test_agrees_with_caffe(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert len(golden_names("pool")) >= 8


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((1, 1, 1, 1), "kernel_size: 1"),
        ((2, 3, 4, 6), "kernel_size: 2 stride: 2"),
        ((2, 3, 5, 7), "kernel_size: 2 stride: 2"),
        ((2, 2, 5, 4), "kernel_size: 3 stride: 1"),
        ((1, 2, 7, 6), "kernel_size: 3 stride: 2 pad: 1"),
        ((1, 2, 5, 6), "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 3 pad_h: 1 pad_w: 1"),
        ((2, 2, 6, 7), "kernel_size: 2 stride: 3 round_mode: FLOOR"),
        ((2, 2, 2, 3), "kernel_size: 3 stride: 2"),
        ((3, 2, 3, 5), "global_pooling: true"),
    ],
)
def test_gradients(shape: tuple[int, ...], settings: str, method: str) -> None:
    bottom = distinct_values(shape, np.random.default_rng(1))
    check_gradient(layer(f"pool: {method} {settings}"), [bottom])


def test_gradient_with_a_mask_top() -> None:
    bottom = distinct_values((2, 2, 4, 4), np.random.default_rng(2))
    check_gradient(layer("kernel_size: 2 stride: 2"), [bottom], top_count=2, differentiable_tops=[0])


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        (24, "kernel_size: 2 stride: 2", 12),
        (7, "kernel_size: 3 stride: 2", 3),
        (8, "kernel_size: 3 stride: 2", 4),  # rounded up: the last window has two rows
        (8, "kernel_size: 3 stride: 2 round_mode: FLOOR", 3),
        (112, "kernel_size: 3 stride: 2", 56),
        (112, "kernel_size: 3 stride: 2 pad: 1", 57),
        (5, "kernel_size: 2 stride: 2 pad: 1", 3),  # a fourth window would start in the padding behind the image
        (6, "kernel_size: 2 stride: 2 pad: 1", 4),
        (7, "global_pooling: true", 1),
    ],
)
def test_output_size_is_caffes(size: int, settings: str, expected: int) -> None:
    run = set_up_layer(layer(settings), [np.zeros((1, 2, size, size))])
    assert run.tops[0].shape == (1, 2, expected, expected)


def test_first_of_equals_in_row_order_gets_the_gradient() -> None:
    run = set_up_layer(layer("kernel_size: 2 stride: 2"), [[[[[0.0, 5, 1, 1], [5, 5, 1, 1]]]]], top_count=2)
    run.forward()
    assert run.tops[1].data.ravel().tolist() == [1, 2]
    run.tops[0].diff[...] = [[[[3, 4]]]]
    run.layer.backward(run.tops, [True], run.bottoms)
    assert run.bottoms[0].diff.tolist() == [[[[0, 3, 4, 0], [0, 0, 0, 0]]]]


def test_ave_counts_padding_but_not_what_lies_behind_it() -> None:
    run = set_up_layer(layer("pool: AVE kernel_size: 3 stride: 2 pad: 1"), [np.ones((1, 1, 4, 4))])
    (top,) = run.forward()
    # Windows start at -1, 1, 3; they hold 2, 3, 1 pixels of the image, and 3, 3, 2 of the padded image.
    along = np.array([2 / 3, 3 / 3, 1 / 2])
    np.testing.assert_allclose(top[0, 0], np.outer(along, along))


def test_global_pooling_follows_the_image() -> None:
    run = set_up_layer(layer("pool: AVE global_pooling: true"), [np.ones((1, 1, 4, 4))])
    run.bottoms[0].reshape(2, 3, 5, 2)
    run.bottoms[0].data[...] = 7
    run.layer.reshape(run.bottoms, run.tops)
    (top,) = run.forward()
    assert top.shape == (2, 3, 1, 1)
    np.testing.assert_allclose(top, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("pool: STOCHASTIC kernel_size: 2 pad: 1", r"STOCHASTIC takes pad 0; given is \(1, 1\)"),
        ("pool: MAX", "give kernel_size, or both"),
        ("kernel_size: 2 kernel_h: 2", "give kernel_size, or both"),
        ("kernel_h: 2", "give kernel_size, or both"),
        ("kernel_size: 2 stride_h: 2", "give stride, or both"),
        ("kernel_size: 3 pad: 1 pad_h: 1 pad_w: 1", "give pad, or both"),
        ("kernel_size: 0", "at least 1"),
        ("kernel_size: 2 stride: 0", "at least 1"),
        ("kernel_size: 2 pad: 2", r"pad \(2, 2\) must be smaller than the kernel \(2, 2\)"),
        ("global_pooling: true kernel_size: 2", "leave kernel_size"),
        ("global_pooling: true stride: 2", "takes pad 0 and stride 1"),
        ("kernel_size: 9", r"kernel 9 is larger than the padded height of bottom\[0\].*\(1, 2, 6, 5\): pad is 0"),
        ("kernel_size: 1 stride: 2", "last window .* starts behind the height"),
    ],
)
def test_refuses(settings: str, message: str) -> None:
    with pytest.raises(LayerError, match=message) as caught:
        set_up_layer(layer(settings), [np.zeros((1, 2, 6, 5))])
    assert "layer 'pool1' (Pooling)" in str(caught.value)


def test_refuses_other_axes_and_a_mask_of_averages() -> None:
    with pytest.raises(ShapeMismatchError, match=r"\(2, 3, 4\).*4 axes"):
        set_up_layer(layer("kernel_size: 2"), [np.zeros((2, 3, 4))])
    for method in ("AVE", "STOCHASTIC"):
        with pytest.raises(LayerError, match="only pool: MAX has a second top"):
            set_up_layer(layer(f"pool: {method} kernel_size: 2"), [np.zeros((1, 1, 4, 4))], top_count=2)
