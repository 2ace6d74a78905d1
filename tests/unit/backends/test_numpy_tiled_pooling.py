from __future__ import annotations

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.backends.numpy.pooling import MaxPooling
from paratrain.backends.numpy.scratch import Scratch
from paratrain.backends.numpy.tiled_pooling import TiledMaxPooling
from tests.oracles import max_pool, max_pool_gradient


@pytest.mark.parametrize("group_bytes", [1, 1 << 20])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("spatial", "kernel", "pad", "output"),
    [
        ((6, 9), (6, 9), (0, 0), (1, 1)),  # the whole image
        ((6, 8), (3, 4), (0, 0), (2, 2)),
        ((9, 7), (5, 4), (1, 1), (2, 2)),  # padding on both sides
        ((7, 7), (3, 2), (0, 0), (3, 4)),  # windows reach beyond the image
        ((8, 7), (3, 3), (0, 0), (2, 2)),  # and leave a rest of it
    ],
)
def test_agrees_with_plain_loops(
    spatial: tuple[int, int],
    kernel: tuple[int, int],
    pad: tuple[int, int],
    output: tuple[int, int],
    ties: bool,
    group_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("paratrain.backends.numpy.pooling._GROUP_BYTES", group_bytes)
    g = PoolingGeometry(PoolMethod.MAX, 3, 2, spatial, kernel, kernel, pad, output)
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, size=(3, 2, *spatial)).astype(float) if ties else rng.normal(size=(3, 2, *spatial))
    expected, expected_mask = max_pool(x, output, kernel, kernel, pad)
    top, mask, dx = np.full(expected.shape, np.nan), np.full(expected.shape, np.nan), np.full(x.shape, np.nan)
    pooling = TiledMaxPooling(g, np.float64, Scratch())
    pooling.forward(x, top, mask)
    np.testing.assert_array_equal(top, expected)
    np.testing.assert_array_equal(mask, expected_mask)
    dy = rng.normal(size=top.shape)
    pooling.backward(x, dy, dx)
    np.testing.assert_allclose(dx, max_pool_gradient(x, expected_mask, dy), atol=1e-12)


def test_is_chosen_for_large_windows_side_by_side() -> None:
    def kind(kernel: int, stride: int) -> type:
        sizes = ((kernel, kernel), (stride, stride), (0, 0), (2, 2))
        geometry = PoolingGeometry(PoolMethod.MAX, 1, 1, (kernel + stride, kernel + stride), *sizes)
        return type(create_backend("numpy").pooling(geometry, np.float32))

    assert kind(14, 14) is TiledMaxPooling
    assert kind(14, 13) is kind(2, 2) is MaxPooling
