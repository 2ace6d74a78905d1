from __future__ import annotations

import itertools

import numpy as np
import pytest

from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.backends.numpy.scratch import Scratch
from paratrain.backends.numpy.stochastic_pooling import StochasticPooling


@pytest.mark.parametrize("group_bytes", [1, 1 << 20])
@pytest.mark.parametrize(
    ("spatial", "kernel", "stride", "output"),
    [((4, 6), (2, 2), (2, 2), (2, 3)), ((5, 4), (3, 2), (1, 2), (3, 2)), ((5, 7), (2, 3), (2, 2), (3, 3))],
)
def test_agrees_with_plain_loops(
    spatial: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    output: tuple[int, int],
    group_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("paratrain.backends.numpy.pooling._GROUP_BYTES", group_bytes)
    g = PoolingGeometry(PoolMethod.STOCHASTIC, 3, 2, spatial, kernel, stride, (0, 0), output)
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(3, 2, *spatial)), 0)  # as behind a ReLU: many zeros
    numbers = rng.random((3, 2, *output))
    numbers[0, 0, 0, 0] = 0  # the threshold is the whole sum
    dy = rng.normal(size=numbers.shape)
    expected, expected_dx = np.empty(numbers.shape), np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*numbers.shape):
        rows = range(i * stride[0], min(i * stride[0] + kernel[0], spatial[0]))
        columns = range(j * stride[1], min(j * stride[1] + kernel[1], spatial[1]))
        pixels = list(itertools.product(rows, columns))
        values = [float(x[(n, c, *pixel)]) for pixel in pixels]
        threshold = (1 - numbers[n, c, i, j]) * sum(values)
        chosen = next(k for k in range(len(values)) if sum(values[: k + 1]) >= threshold)
        expected[n, c, i, j] = values[chosen]
        expected_dx[(n, c, *pixels[chosen])] += dy[n, c, i, j]
    pooling = StochasticPooling(g, np.float64, Scratch())
    top, dx = np.full(numbers.shape, np.nan), np.full(x.shape, np.nan)
    pooling.forward(x, top, numbers.copy())
    np.testing.assert_array_equal(top, expected)
    pooling.backward(x, dy, dx)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-12)


def test_float32_thresholds_are_always_reached() -> None:
    g = PoolingGeometry(PoolMethod.STOCHASTIC, 200, 8, (5, 5), (5, 5), (1, 1), (0, 0), (1, 1))
    x = np.random.default_rng(1).uniform(1, 2, size=(200, 8, 5, 5)).astype(np.float32)
    x[:, :, 0, 0] = 0.5  # the first pixel, which is taken where nothing reaches the threshold
    top = np.empty((200, 8, 1, 1), np.float32)
    StochasticPooling(g, np.float32, Scratch()).forward(x, top, np.zeros_like(top))
    np.testing.assert_array_equal(top[:, :, 0, 0], x[:, :, -1, -1])
