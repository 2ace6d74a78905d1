"""Pooling with pool: STOCHASTIC."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.layers.base import Clock, LayerContext
from paratrain.proto import TEST, TRAIN
from tests.gradient_check import check_gradient, set_up_layer

Array = np.ndarray[Any, Any]
GEOMETRIES = [
    ((1, 1, 1, 1), "kernel_size: 1"),
    ((2, 3, 4, 6), "kernel_size: 2 stride: 2"),
    ((2, 3, 5, 7), "kernel_size: 2 stride: 2"),
    ((2, 2, 5, 4), "kernel_size: 3 stride: 1"),
    ((1, 2, 5, 5), "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 3"),
    ((2, 2, 6, 7), "kernel_size: 2 stride: 3 round_mode: FLOOR"),
    ((2, 2, 2, 3), "kernel_size: 3 stride: 2 round_mode: CEIL"),
    ((3, 2, 3, 5), "global_pooling: true"),
]


def layer(settings: str, name: str = "pool1") -> str:
    return f'name: "{name}" type: "Pooling" pooling_param {{ pool: STOCHASTIC {settings} }}'


def context(phase: Any = TRAIN, rank: int = 0, size: int = 1, seed: int = 3, iteration: int = 0) -> LayerContext:
    backend = create_backend("numpy")
    return LayerContext(backend, phase, np.float64, seed=seed, rank=rank, size=size, clock=Clock(iteration))


def draw(x: Array, settings: str = "kernel_size: 2 stride: 2", name: str = "pool1", **where: Any) -> Array:
    """What the layer draws in TRAIN."""
    return set_up_layer(layer(settings, name), [x], context=context(**where)).forward()[0]


def windows(run: Any) -> Any:
    """Yield for every window of one channel its place and its pixels inside the image, in row order."""
    pooling, shape, output = run.layer.parameter.pooling_param, run.bottoms[0].shape, run.tops[0].shape

    def sizes(name: str) -> list[int]:
        if pooling.HasField(f"{name}_h"):
            return [getattr(pooling, f"{name}_h"), getattr(pooling, f"{name}_w")]
        return [getattr(pooling, "kernel_size" if name == "kernel" else name)] * 2

    kernel, stride = sizes("kernel"), sizes("stride")
    if pooling.global_pooling:
        kernel = list(shape[2:])
    for y, x in itertools.product(range(output[2]), range(output[3])):
        rows = range(y * stride[0], min(y * stride[0] + kernel[0], shape[2]))
        columns = range(x * stride[1], min(x * stride[1] + kernel[1], shape[3]))
        yield (y, x), list(itertools.product(rows, columns))


@pytest.mark.parametrize(("shape", "settings"), GEOMETRIES)
def test_train_draws_a_pixel_of_each_window_and_gives_it_the_gradient(shape: tuple[int, ...], settings: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.permutation(int(np.prod(shape))).reshape(shape) + 1.0  # no two are equal: the top tells which was drawn
    run = set_up_layer(layer(settings), [x], context=context())
    (y,) = run.forward()
    dy = rng.normal(size=y.shape)
    run.tops[0].diff[...] = dy
    run.bottoms[0].diff[...] = np.nan
    run.layer.backward(run.tops, [True], run.bottoms)
    expected = np.zeros(shape)
    for n, c in np.ndindex(*shape[:2]):
        for place, pixels in windows(run):
            (pixel,) = [pixel for pixel in pixels if x[(n, c, *pixel)] == y[(n, c, *place)]]
            expected[(n, c, *pixel)] += dy[(n, c, *place)]
    np.testing.assert_allclose(run.bottoms[0].diff, expected, atol=1e-12)


def test_pixels_are_drawn_by_their_share() -> None:
    window = np.array([[1.0, 0.0], [5.0, 2.0]])
    x = np.tile(window, (40, 5, 10, 10))
    y = draw(x)
    for value, share in ((1, 1 / 8), (5, 5 / 8), (2, 2 / 8)):
        # 20000 draws: the standard deviation of a share is at most 0.0035.
        assert (y == value).mean() == pytest.approx(share, abs=0.015)
    assert not (y == 0).any()


def test_draws_of_neighbouring_windows_are_independent() -> None:
    y = draw(np.tile([[1.0, 2.0]], (100, 4, 5, 20)), "kernel_h: 1 kernel_w: 2 stride_h: 1 stride_w: 2")
    drawn = y == 2
    assert drawn.mean() == pytest.approx(2 / 3, abs=0.02)
    for axis in range(4):
        first, second = (
            np.take(drawn, range(drawn.shape[axis] - 1), axis),
            np.take(drawn, range(1, drawn.shape[axis]), axis),
        )
        assert (first & second).mean() == pytest.approx(4 / 9, abs=0.03)


def test_windows_without_positive_values_give_the_first_pixel() -> None:
    assert draw(np.zeros((1, 1, 2, 2))).tolist() == [[[[0]]]]
    assert draw(np.array([[[[-4.0, -3], [-2, -1]]]])).tolist() == [[[[-4]]]]


def test_repeats_for_the_same_step_only() -> None:
    x = np.random.default_rng(1).uniform(1, 2, size=(4, 3, 6, 6))
    first = draw(x)
    assert np.array_equal(first, draw(x))
    assert not np.array_equal(first, draw(x, iteration=1))
    assert not np.array_equal(first, draw(x, seed=4))
    assert not np.array_equal(first, draw(x, name="pool2"))
    where = context()
    run = set_up_layer(layer("kernel_size: 2 stride: 2"), [x], context=where)
    assert np.array_equal(run.forward()[0], first)
    where.clock.sub_iteration = 1
    assert not np.array_equal(run.forward()[0], first)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_with_interleaved_rows_draw_what_one_rank_draws(size: int) -> None:
    x = np.random.default_rng(2).uniform(size=(8, 3, 6, 5))
    whole = draw(x)
    for rank in range(size):
        assert np.array_equal(draw(x[rank::size], rank=rank, size=size), whole[rank::size])


@pytest.mark.parametrize(("shape", "settings"), GEOMETRIES)
def test_gradient_in_train(shape: tuple[int, ...], settings: str) -> None:
    # The choice jumps where a pixel moves a running sum across its threshold: the steps are too small to meet that.
    x = np.random.default_rng(3).uniform(1, 2, size=shape)
    check_gradient(layer(settings), [x], context=context(), step=1e-9, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "settings"), GEOMETRIES)
def test_test_phase_is_the_weighted_mean(shape: tuple[int, ...], settings: str) -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(0.1, 2, size=shape)
    check_gradient(layer(settings), [x], context=context(TEST))
    run = set_up_layer(layer(settings), [x], context=context(TEST))
    (y,) = run.forward()
    for n, c in np.ndindex(*shape[:2]):
        for place, pixels in windows(run):
            values = [float(x[(n, c, *pixel)]) for pixel in pixels]
            assert y[(n, c, *place)] == pytest.approx(sum(value**2 for value in values) / sum(values))


def test_test_phase_where_nothing_is_positive() -> None:
    x = np.zeros((1, 2, 2, 2))
    x[0, 1] = np.array([[-1, 0], [0.5, -1]])
    run = set_up_layer(layer("kernel_size: 2 stride: 2"), [x], context=context(TEST))
    assert run.forward()[0].tolist() == [[[[0]], [[0]]]]
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert not run.bottoms[0].diff.any()


def test_test_phase_is_the_expectation_of_train() -> None:
    x = np.random.default_rng(5).uniform(size=(1, 2, 4, 4))
    (expected,) = set_up_layer(layer("kernel_size: 2 stride: 2"), [x], context=context(TEST)).forward()
    mean = draw(np.tile(x, (4000, 1, 1, 1))).mean(axis=0)
    np.testing.assert_allclose(mean, expected[0], atol=0.03)


def test_reshape_to_another_batch() -> None:
    x = np.random.default_rng(6).uniform(size=(9, 2, 6, 6))
    whole = draw(x)
    run = set_up_layer(layer("kernel_size: 2 stride: 2"), [x[:4]], context=context())
    for count in (4, 9, 2):
        run.bottoms[0].reshape(count, 2, 6, 6)
        run.bottoms[0].data[...] = x[:count]
        run.layer.reshape(run.bottoms, run.tops)
        assert np.array_equal(run.forward()[0], whole[:count])
