from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.backends.numpy.pooling import AveragePooling, MaxPooling
from paratrain.backends.numpy.scratch import Scratch
from tests.oracles import average_pool, max_pool, max_pool_gradient


def output_size(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    """The least number of windows whose steps take in (ceil) or stay within (floor) the padded image."""
    count = 1
    while (count - 1) * stride + kernel < size + 2 * pad:
        count += 1
    if not ceil and (count - 1) * stride + kernel > size + 2 * pad:
        count -= 1
    while pad and (count - 1) * stride >= size + pad:
        count -= 1
    return count


@st.composite
def geometries(draw: Any) -> PoolingGeometry:
    axes = []
    for _ in range(2):
        k = draw(st.integers(1, 4))
        s = draw(st.integers(1, 3))
        p = draw(st.integers(0, k - 1))
        n = draw(st.integers(max(k - 2 * p, 1), 9))
        o = output_size(n, k, s, p, draw(st.booleans()))
        if (o - 1) * s - p >= n:
            o -= 1
        axes.append((n, k, s, p, o))
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return PoolingGeometry(PoolMethod.MAX, batch, channels, *zip(*axes, strict=True))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(g=geometries(), few_values=st.booleans())
def test_maximum_agrees_with_plain_loops(g: PoolingGeometry, few_values: bool) -> None:
    check_maximum(g, few_values)


def test_maximum_in_groups_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.backends.numpy.pooling._GROUP_BYTES", 2 * 7 * 7 * 8 * 2)
    check_maximum(PoolingGeometry(PoolMethod.MAX, 5, 2, (7, 7), (3, 3), (2, 2), (0, 0), (3, 3)), True)


def check_maximum(g: PoolingGeometry, few_values: bool) -> None:
    rng = np.random.default_rng(0)
    shape = (g.batch, g.channels, *g.spatial)
    x = rng.integers(-2, 2, shape).astype(np.float64) if few_values else rng.normal(size=shape)
    expected, expected_mask = max_pool(x, g.output, g.kernel, g.stride, g.pad)
    top, mask, dx = np.full(expected.shape, np.nan), np.full(expected.shape, np.nan), np.full(shape, np.nan)
    pooling = MaxPooling(g, np.float64, Scratch())
    pooling.forward(x, top, mask)
    assert np.array_equal(top, expected)
    assert np.array_equal(mask, expected_mask)
    dy = rng.normal(size=top.shape)
    pooling.backward(x, dy, dx)
    np.testing.assert_allclose(dx, max_pool_gradient(x, expected_mask, dy), atol=1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(g=geometries())
def test_average_agrees_with_plain_loops(g: PoolingGeometry) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(g.batch, g.channels, *g.spatial))
    expected, matrix = average_pool(x, g.output, g.kernel, g.stride, g.pad)
    top, dx = np.full(expected.shape, np.nan), np.full(x.shape, np.nan)
    pooling = AveragePooling(g, np.float64, Scratch())
    pooling.forward(x, top, None)
    np.testing.assert_allclose(top, expected, atol=1e-12)
    dy = rng.normal(size=top.shape)
    pooling.backward(x, dy, dx)
    np.testing.assert_allclose(dx, (dy.reshape(*dy.shape[:2], -1) @ matrix.T).reshape(x.shape), atol=1e-12)


def test_nan_is_not_hidden() -> None:
    g = PoolingGeometry(PoolMethod.MAX, 1, 1, (2, 4), (2, 2), (2, 2), (0, 0), (1, 2))
    x = np.array([[[[1.0, np.nan, 1, 2], [3, 4, 5, 3]]]])
    top = np.empty((1, 1, 1, 2))
    MaxPooling(g, np.float64, Scratch()).forward(x, top, None)
    assert np.isnan(top[0, 0, 0, 0])
    assert top[0, 0, 0, 1] == 5
