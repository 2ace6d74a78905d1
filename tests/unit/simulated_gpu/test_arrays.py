"""Arrays of the simulated GPU are as strict as CuPy's, and what they compute is numpy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

TYPES = [
    np.dtype(kind)
    for kind in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.int32, np.int64, np.uint8, bool)
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_values_go_and_come_back(simulated_gpu: Any, kind: np.dtype[Any]) -> None:
    host = np.random.default_rng(1).uniform(0, 3, (3, 4, 5)).astype(kind)
    array = simulated_gpu.asarray(host)
    assert (array.dtype, array.shape, array.strides, array.nbytes) == (kind, host.shape, host.strides, host.nbytes)
    for found, expected in (
        (array, host),
        (array[1:, ::2], host[1:, ::2]),
        (array.transpose(2, 0, 1), host.transpose(2, 0, 1)),
        (array.reshape(-1, 5)[array.reshape(-1, 5)[:, 0] > 1], host.reshape(-1, 5)[host.reshape(-1, 5)[:, 0] > 1]),
        (array.astype(np.float64), host.astype(np.float64)),
        (array.ravel()[simulated_gpu.asarray([3, 1, 1])], host.ravel()[[3, 1, 1]]),
    ):
        assert found.get().dtype == expected.dtype
        np.testing.assert_array_equal(found.get(), expected)


def test_views_share_memory(simulated_gpu: Any) -> None:
    array = simulated_gpu.zeros((4, 6), np.float32)
    array[1, 2:4] = 5
    array.reshape(2, 12)[1, 0] = 7
    array.T[0, 3] += 1
    row = simulated_gpu.ndarray((6,), np.float32, memptr=array.data + 24)
    np.testing.assert_array_equal(row.get(), [0, 0, 5, 5, 0, 0])
    assert array[1].data.ptr == row.data.ptr == array.data.ptr + 24
    assert float(array.sum()) == 5 + 5 + 7 + 1


def test_operations_agree_with_numpy(simulated_gpu: Any) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    x, y = simulated_gpu.asarray(a), simulated_gpu.asarray(b)
    cupy = simulated_gpu
    for found, expected in (
        (2 * x - y / 3, 2 * a - b / 3),
        (np.float32(2) * x, 2 * a),
        (x > y, a > b),
        (-x, -a),
        (cupy.exp(x), np.exp(a)),
        (np.exp(x), np.exp(a)),
        (cupy.where(x > 0, x, 0.1 * x), np.where(a > 0, a, np.float32(0.1) * a)),
        (x.sum(axis=1), a.sum(axis=1)),
        (cupy.argmax(x, axis=1), a.argmax(axis=1)),
        (cupy.take(x, cupy.asarray([2, 0]), axis=0), a[[2, 0]]),
        (
            cupy.take_along_axis(x, cupy.asarray([[1], [0], [3]]), 1),
            np.take_along_axis(a, np.array([[1], [0], [3]]), 1),
        ),
        (cupy.clip(x, -0.5, 0.5), a.clip(-0.5, 0.5)),
        (cupy.concatenate([x, y], axis=1), np.concatenate([a, b], axis=1)),
        (x @ y.T, a @ b.T),
        (cupy.einsum("ij,ij->i", x, y), np.einsum("ij,ij->i", a, b)),
        (cupy.bincount(cupy.asarray([1, 1, 3])), np.bincount([1, 1, 3])),
    ):
        assert isinstance(found, cupy.ndarray) and found.dtype == expected.dtype
        np.testing.assert_allclose(found.get(), expected, rtol=1e-6)
    x += y
    cupy.multiply(x, 2, out=x)
    np.testing.assert_allclose(x.get(), (a + b) * 2)
    cupy.add.at(x, cupy.asarray([0, 0]), 1)
    np.testing.assert_allclose(x.get()[0], (a + b)[0] * 2 + 2)
    total = x.sum()
    assert isinstance(total, cupy.ndarray) and total.shape == ()
    divided = x / 0  # without a warning, as on a GPU
    assert not cupy.isfinite(divided).any()


def test_sums_of_narrow_numbers_are_made_in_float(simulated_gpu: Any) -> None:
    for kind in (np.float16, ml_dtypes.bfloat16):
        ones = simulated_gpu.ones(4000, kind)
        assert float(ones.sum()) == np.float64(np.asarray(4000).astype(kind))
        assert ones.sum().dtype == kind
        assert float(simulated_gpu.dot(ones, ones)) == np.float64(np.asarray(4000).astype(kind))


HOST = np.ones((2, 3), np.float32)
REFUSED: dict[str, tuple[Callable[[Any, Any], object], type[Exception], str]] = {
    "array of the host on the right": (lambda cupy, x: x + HOST, TypeError, "Unsupported type"),
    "array of the host on the left": (lambda cupy, x: HOST + x, TypeError, "ndarray"),
    "array of the host in a function": (lambda cupy, x: cupy.maximum(x, HOST), TypeError, "Unsupported type"),
    "array of the host in a list": (lambda cupy, x: cupy.concatenate([x, HOST]), TypeError, "Unsupported type"),
    "in place": (lambda cupy, x: x.__iadd__(HOST), TypeError, "Unsupported type"),
    "assigned": (lambda cupy, x: x.__setitem__(..., HOST), ValueError, "non-scalar"),
    "copied over": (lambda cupy, x: cupy.copyto(x, HOST), TypeError, "Unsupported type"),
    "implicit conversion": (lambda cupy, x: np.asarray(x), TypeError, "Implicit conversion"),
    "into an array of the host": (lambda cupy, x: HOST.__setitem__(..., x), TypeError, "Implicit conversion"),
    "out of the host": (lambda cupy, x: cupy.add(x, x, out=HOST), TypeError, "return arrays"),
    "where": (lambda cupy, x: cupy.add(x, x, where=x > 0), TypeError, "Wrong arguments"),
    "initial": (lambda cupy, x: cupy.max(x, initial=0), TypeError, "unexpected keyword"),
    "einsum out": (lambda cupy, x: cupy.einsum("ij->i", x, out=x), TypeError, "Did not understand"),
    "a name of numpy that CuPy lacks": (lambda cupy, x: cupy.nditer, AttributeError, "nditer"),
    "index": (lambda cupy, x: range(x.sum()), TypeError, "integer"),
    "unsafe cast": (lambda cupy, x: cupy.add(x, 0.5, out=cupy.empty((2, 3), np.int32)), TypeError, "cast"),
    "at of a function without atomics": (lambda cupy, x: cupy.multiply.at(x, 0, 2), NotImplementedError, "at"),
    "reduce": (lambda cupy, x: cupy.maximum.reduce(x), NotImplementedError, "reduce"),
    "set of another type": (lambda cupy, x: x.set(HOST.astype(np.float64)), TypeError, "cannot be set"),
    "set of another shape": (lambda cupy, x: x.set(HOST[:1]), ValueError, "Shape mismatch"),
    "set of a list": (lambda cupy, x: x.set([1]), TypeError, "Only numpy"),
    "truth of many": (lambda cupy, x: bool(x), ValueError, "ambiguous"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cupy_refuses_is_refused(simulated_gpu: Any, name: str) -> None:
    action, error, message = REFUSED[name]
    array = simulated_gpu.ones((2, 3), np.float32)
    with pytest.raises(error, match=message):
        action(simulated_gpu, array)
    assert float(array.sum()) == 6


def test_arrays_belong_to_their_device(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATED_GPUS", "2")
    cupy = simulated_gpu
    here = cupy.ones(3, np.float32)
    with cupy.cuda.Device(1):
        there = cupy.ones(3, np.float32)
        assert (here.device.id, there.device.id) == (0, 1)
        with pytest.raises(ValueError, match="current = 1"):
            _ = here + 1
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        _ = here + there
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        cupy.cuda.Device(2).use()
    monkeypatch.setenv("SIMULATED_GPUS", "0")
    assert not cupy.cuda.is_available()
    with pytest.raises(RuntimeError, match="cudaErrorInsufficientDriver") as caught:
        cupy.cuda.runtime.getDeviceCount()
    assert caught.value.status == 35
