from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from paratrain.layers.base import Layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.indices import add_rows, take_rows

LAYER = cast(Layer, SimpleNamespace(xp=np))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("row_count", [1, 3, 200])
def test_add_rows(row_count: int, count: int) -> None:
    rng = np.random.default_rng(count)
    rows, source = rng.integers(0, row_count, count), rng.normal(size=(count, 4))
    target = rng.normal(size=(row_count, 4))
    expected = target.copy()
    for row, values in zip(rows, source, strict=True):
        expected[row] += values
    given = source.copy()
    add_rows(LAYER, target, rows, source, Buffer(np))
    np.testing.assert_allclose(target, expected, atol=1e-13)
    np.testing.assert_array_equal(source, given)


def test_add_rows_of_images_and_of_numbers() -> None:
    for shape in ((), (2, 3)):
        target: Any = np.zeros((3, *shape))
        add_rows(LAYER, target, np.array([2, 0, 2]), np.ones((3, *shape)), Buffer(np))
        np.testing.assert_array_equal(target.reshape(3, -1)[:, 0], [1, 0, 2])


def test_take_rows() -> None:
    out = np.empty((3, 2))
    take_rows(LAYER, np.array([[1.0, 2], [3, 4]]), np.array([1, 1, 0]), out)
    assert out.tolist() == [[3, 4], [3, 4], [1, 2]]
