from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, distinct_values, set_up_layer

Array = npt.NDArray[Any]


def roi_layer(pooled_h: int, pooled_w: int, scale: float = 1.0) -> str:
    fields = f"pooled_h: {pooled_h} pooled_w: {pooled_w} spatial_scale: {scale}"
    return f'type: "ROIPooling" bottom: "x" bottom: "rois" roi_pooling_param {{ {fields} }}'


def half_away(value: float) -> int:
    """C's round()."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def pool(x: Array, regions: Array, cells: tuple[int, int], scale: float) -> tuple[Array, Array]:
    """Return the maxima and the pixels y * W + x they came from, -1 for empty cells, pixel by pixel."""
    kind = regions.dtype.type
    out = np.zeros((len(regions), x.shape[1], *cells))
    index = np.full(out.shape, -1)
    for r, c in np.ndindex(len(regions), x.shape[1]):
        left, upper, right, lower = (half_away(float(kind(v) * kind(scale))) for v in regions[r, 1:])
        sizes = max(lower - upper + 1, 1), max(right - left + 1, 1)
        for i, j in np.ndindex(*cells):
            steps = [kind(size) / kind(count) for size, count in zip(sizes, cells, strict=True)]
            first = [math.floor(kind(k) * step) for k, step in zip((i, j), steps, strict=True)]
            end = [math.ceil(kind(k + 1) * step) for k, step in zip((i, j), steps, strict=True)]
            rows = range(min(max(first[0] + upper, 0), x.shape[2]), min(max(end[0] + upper, 0), x.shape[2]))
            columns = range(min(max(first[1] + left, 0), x.shape[3]), min(max(end[1] + left, 0), x.shape[3]))
            best = -math.inf
            for y in rows:
                for column in columns:
                    if x[int(regions[r, 0]), c, y, column] > best:
                        best = float(x[int(regions[r, 0]), c, y, column])
                        out[r, c, i, j], index[r, c, i, j] = best, y * x.shape[3] + column
    return out, index


def random_regions(rng: np.random.Generator, count: int, images: int, height: float, width: float) -> Array:
    """Regions within the image and across its edges, some of them upside down."""
    corners = rng.uniform(-0.2, 1.2, size=(count, 4)) * [width, height, width, height]
    return np.concatenate([rng.integers(0, images, size=(count, 1)), corners], axis=1)


@pytest.mark.parametrize(
    ("shape", "cells", "scale", "count"),
    [
        ((2, 3, 8, 6), (2, 3), 1.0, 6),
        ((1, 2, 9, 13), (7, 7), 0.0625, 5),
        ((2, 1, 1, 1), (1, 1), 1.0, 3),
        ((1, 1, 5, 1), (2, 1), 0.5, 4),
        ((3, 2, 21, 34), (3, 2), 0.25, 8),
    ],
)
def test_values_and_gradient(shape: tuple[int, ...], cells: tuple[int, int], scale: float, count: int) -> None:
    rng = np.random.default_rng(0)
    x = distinct_values(shape, rng)
    regions = random_regions(rng, count, shape[0], shape[2] / scale, shape[3] / scale)
    (y,) = set_up_layer(roi_layer(*cells, scale), [x, regions]).forward()
    expected, _ = pool(x, regions, cells, scale)
    assert np.array_equal(y, expected)
    check_gradient(roi_layer(*cells, scale), [x, regions], propagate=[True, False])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_values_give_the_gradient_to_the_first_in_row_order(dtype: type) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-1, 3, size=(2, 3, 17, 19)).astype(dtype)
    regions = random_regions(rng, 40, 2, 17 * 16, 19 * 16).astype(dtype)
    run = set_up_layer(roi_layer(7, 6, 0.0625), [x, regions], dtype=dtype)
    (y,) = run.forward()
    expected, index = pool(x, regions, (7, 6), 0.0625)
    assert np.array_equal(y, expected)
    top_diff = rng.integers(-4, 5, size=y.shape).astype(dtype)
    run.tops[0].diff[...] = top_diff
    run.layer.backward(run.tops, [True, False], run.bottoms)
    diff = np.zeros(x.shape)
    for r, c, i, j in np.ndindex(*y.shape):
        if index[r, c, i, j] >= 0:
            diff[(int(regions[r, 0]), c, *divmod(index[r, c, i, j], 19))] += top_diff[r, c, i, j]
    assert np.array_equal(run.bottoms[0].diff, diff)


def test_halves_are_rounded_away_from_zero() -> None:
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    (y,) = set_up_layer(roi_layer(1, 1, 0.5), [x, [[0, 1, 1, 1, 1], [0, 5, 3, 5, 3], [0, -1, -1, 1, 1]]]).forward()
    assert y.reshape(-1).tolist() == [5, 11, 5]


def test_regions_outside_and_none_at_all() -> None:
    x = np.full((1, 2, 3, 3), -5.0)
    run = set_up_layer(roi_layer(2, 2), [x, [[0, 50, 50, 60, 60]]])
    assert not run.forward()[0].any()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert not run.bottoms[0].diff.any()
    run.bottoms[1].reshape(0, 5)
    run.layer.reshape(run.bottoms, run.tops)
    assert run.forward()[0].shape == (0, 2, 2, 2)
    run.layer.backward(run.tops, [True, False], run.bottoms)


def test_regions_may_have_four_axes() -> None:
    x, regions = np.arange(9.0).reshape(1, 1, 3, 3), np.array([0.0, 0, 0, 2, 2]).reshape(1, 5, 1, 1)
    assert set_up_layer(roi_layer(1, 1), [x, regions]).forward()[0].tolist() == [[[[8.0]]]]


@pytest.mark.parametrize(
    ("cells", "shapes", "error", "message"),
    [
        ((0, 2), [(1, 1, 2, 2), (1, 5)], LayerError, "pooled_h and pooled_w"),
        ((1, 1), [(1, 2, 2), (1, 5)], ShapeMismatchError, r"takes \(N, C, H, W\)"),
        ((1, 1), [(1, 1, 2, 2), (1, 4)], ShapeMismatchError, r"'rois' is \(1, 4\)"),
    ],
)
def test_wrong_shapes(cells: tuple[int, int], shapes: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        set_up_layer(roi_layer(*cells), [np.zeros(shape) for shape in shapes])


def test_wrong_uses() -> None:
    for bad in (2, -1, np.nan):
        run = set_up_layer(roi_layer(1, 1), [np.zeros((2, 1, 3, 3)), [[0, 0, 0, 1, 1], [bad, 0, 0, 1, 1]]])
        with pytest.raises(LayerError, match=r"region 1 is .*an image from 0 to 1"):
            run.forward()
    with pytest.raises(LayerError, match="spatial_scale is 0"):
        set_up_layer(roi_layer(1, 1, 0), [np.zeros((1, 1, 1, 1)), np.zeros((1, 5))])
    run = set_up_layer(roi_layer(1, 1), [np.zeros((1, 1, 3, 3)), np.zeros((1, 5))])
    run.forward()
    with pytest.raises(LayerError, match="no gradient by"):
        run.layer.backward(run.tops, [True, True], run.bottoms)
