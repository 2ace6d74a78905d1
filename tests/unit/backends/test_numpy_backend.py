from __future__ import annotations

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.base import LocalResponseGeometry
from paratrain.backends.numpy.scratch import Scratch
from paratrain.errors import UnknownNameError
from tests.oracles import local_response


def test_created_by_name() -> None:
    backend = create_backend("numpy")
    assert (backend.name, backend.xp, backend.device) == ("numpy", np, None)
    backend.synchronize()
    with pytest.raises(UnknownNameError, match=r"unknown backend 'nupmy'; did you mean 'numpy'"):
        create_backend("nupmy")


@pytest.mark.parametrize("accumulate", [False, True])
def test_matrix_product_of_plain_and_transposed_matrices(accumulate: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 5))
    expected = [[sum(a[i, k] * b[k, j] for k in range(4)) + accumulate for j in range(5)] for i in range(3)]
    for left in (a, np.ascontiguousarray(a.T).T):
        for right in (b, np.ascontiguousarray(b.T).T):
            out = np.ones((3, 5))
            create_backend("numpy").matrix_product(left, right, out, accumulate=accumulate)
            np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_scratch_arrays_do_not_overlap_and_the_block_is_used_again() -> None:
    scratch = Scratch()
    first, second, third = scratch.take(((3, 5), np.float32), ((0,), np.float64), ((7,), np.float64))
    first.fill(1)
    third.fill(2)
    assert first.sum() == 15
    assert second.size == 0
    assert all(array.ctypes.data % 64 == 0 for array in (first, third))
    held = scratch.size_bytes
    (again,) = scratch.take(((2, 5), np.float32))
    assert again.ctypes.data == first.ctypes.data
    assert scratch.size_bytes == held


@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_local_response_in_groups_of_images(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.backends.numpy.lrn._GROUP_BYTES", 2 * 6 * 4 * 8)
    x = np.random.default_rng(1).normal(size=(5, 6, 2, 2))
    geometry = LocalResponseGeometry(x.shape, 5, 0.8, beta, 1.2)
    primitive = create_backend("numpy").local_response_normalization(geometry, np.float64)
    y, dx, whole = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    primitive.forward(x, y)
    np.testing.assert_allclose(y, local_response(x, 5, 0.8, beta, 1.2), rtol=1e-12)
    primitive.backward(x, y, x, dx)
    monkeypatch.undo()
    primitive = create_backend("numpy").local_response_normalization(geometry, np.float64)
    primitive.forward(x, y)
    primitive.backward(x, y, x, whole)
    assert np.array_equal(dx, whole)
