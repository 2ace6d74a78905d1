from __future__ import annotations

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.backends.numpy.global_pooling import GlobalAveragePooling
from paratrain.backends.numpy.pooling import AveragePooling
from paratrain.backends.numpy.scratch import Scratch
from tests.oracles import average_pool


@pytest.mark.parametrize("spatial", [(7, 7), (1, 1), (3, 5), (1, 8)])
def test_agrees_with_plain_loops(spatial: tuple[int, int]) -> None:
    g = PoolingGeometry(PoolMethod.AVE, 3, 2, spatial, spatial, (1, 1), (0, 0), (1, 1))
    x = np.random.default_rng(0).normal(size=(3, 2, *spatial))
    expected, matrix = average_pool(x, (1, 1), spatial, (1, 1), (0, 0))
    pooling = GlobalAveragePooling(g, np.float64, Scratch())
    top, dy, dx = (
        np.full(expected.shape, np.nan),
        np.random.default_rng(1).normal(size=(3, 2, 1, 1)),
        np.full(x.shape, np.nan),
    )
    pooling.forward(x, top, None)
    pooling.backward(x, dy, dx)
    np.testing.assert_allclose(top, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dx.reshape(3, 2, -1), dy.reshape(3, 2, 1) * matrix[:, 0], rtol=1e-12)


def test_which_geometries_it_takes() -> None:
    def kind(kernel: tuple[int, int], pad: tuple[int, int], output: tuple[int, int]) -> type:
        g = PoolingGeometry(PoolMethod.AVE, 1, 1, (4, 3), kernel, (1, 1), pad, output)
        return type(create_backend("numpy").pooling(g, np.float32))

    assert kind((4, 3), (0, 0), (1, 1)) is GlobalAveragePooling
    assert kind((4, 2), (0, 0), (1, 2)) is AveragePooling
    assert kind((4, 3), (1, 0), (3, 1)) is AveragePooling
