"""Biases and their gradients on the simulated GPU, against numpy in double precision."""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401  # gives numpy the name bfloat16
import numpy as np
import pytest

from paratrain.backends.cupy.bias import Bias
from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.forms import Form, Forms
from paratrain.backends.cupy.modules import STORAGE_NAMES

SHAPES = [
    (5, 3),
    (2, 3, 16),
    (2, 1, 7),
    (3, 10, 4, 5),
    (4, 48, 2, 3),
    (70, 300),
    (2, 16, 130),
    (1, 1, 5000),
    (600, 2, 9),
]
ROUNDING = {"float32": 1e-6, "float64": 1e-14, "float16": 2e-3, "bfloat16": 1e-2}


@pytest.fixture
def forms(simulated_gpu: Any) -> Forms:
    return Forms(CudaDevice())


def flat(form: Form, values: Any) -> Any:
    """Values (N, C, pixels) in the order of the form, as its type."""
    ordered = values.transpose(0, 2, 1) if form.channels_last else values
    return np.ascontiguousarray(ordered).reshape(-1).astype(form.dtype)


def plain(form: Form, array: Any) -> Any:
    images, pixels = form.shape[0], form.pixels
    if form.channels_last:
        return array.reshape(images, pixels, form.channels).transpose(0, 2, 1).astype(float)
    return array.reshape(images, form.channels, pixels).astype(float)


@pytest.mark.parametrize("name", STORAGE_NAMES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_numpy(
    simulated_gpu: Any, forms: Forms, shape: tuple[int, ...], channels_last: bool, name: str
) -> None:
    cupy, rng = simulated_gpu, np.random.default_rng(0)
    form = Form.of(shape, name, channels_last=channels_last)
    parameter_type = np.float64 if name == "float64" else np.float32
    kernels, size = Bias(forms), (shape[0], form.channels, form.pixels)
    x, dy = (plain(form, flat(form, rng.standard_normal(size))) for _ in range(2))  # rounded as they are stored
    biases = rng.standard_normal(form.channels).astype(parameter_type)

    for bias, slope in ((biases, None), (biases, 0.0), (None, 0.25), (biases, 0.25)):
        y = cupy.asarray(flat(form, x))
        kernels.add(y, form, None if bias is None else cupy.asarray(bias), slope)
        expected = x if bias is None else x + bias.astype(float)[:, None]
        if slope is not None:
            expected = np.where(expected > 0, expected, slope * expected)
        np.testing.assert_allclose(plain(form, y.get()), expected, rtol=ROUNDING[name], atol=ROUNDING[name])

    sums, total = dy.sum(axis=(0, 2)), np.abs(dy).sum(axis=(0, 2))
    kept = cupy.asarray(biases)
    kernels.backward(cupy.asarray(flat(form, dy)), form, kept, accumulate=True)
    assert (np.abs(kept.get() - (biases + sums)) <= 1e-6 * (total + 4)).all()
    written = cupy.empty(form.channels, parameter_type)
    kernels.backward(cupy.asarray(flat(form, dy)), form, written, accumulate=False)
    assert (np.abs(written.get() - sums) <= 1e-6 * total).all()

    before, gradient = np.where(x > 0, dy, 0.5 * dy), None
    for bias_diff in (written, written, None):
        given = cupy.asarray(flat(form, dy))
        gradient = given if gradient is None else cupy.empty_like(given)  # in place, and elsewhere
        kernels.backward(given, form, bias_diff, accumulate=False, relu=(cupy.asarray(flat(form, x)), gradient, 0.5))
        np.testing.assert_allclose(plain(form, gradient.get()), before, rtol=ROUNDING[name], atol=0)
    stored = plain(form, gradient.get())
    assert (np.abs(written.get() - stored.sum(axis=(0, 2))) <= 1e-6 * np.abs(stored).sum(axis=(0, 2))).all()


def test_large_sums_are_made_of_parts_and_the_same_each_time(simulated_gpu: Any, forms: Forms) -> None:
    rng, cupy = np.random.default_rng(0), simulated_gpu
    for channels_last in (False, True):
        form = Form.of((40, 3, 20, 21), np.float32, channels_last=channels_last)
        dy = cupy.asarray(rng.standard_normal(form.count).astype(np.float32))
        found = []
        for _ in range(2):
            out, kernels = cupy.empty(3, np.float32), Bias(forms)
            kernels.backward(dy, form, out, accumulate=False)
            assert kernels._sums is not None, "one part would not try this"
            found.append(out.get().tobytes())
        assert found[0] == found[1]


def test_nothing_to_do(simulated_gpu: Any, forms: Forms) -> None:
    kernels, nothing = Bias(forms), Form.of((0, 2), np.float32)
    out = simulated_gpu.ones(2, np.float32)
    kernels.backward(simulated_gpu.empty(0, np.float32), nothing, out)
    assert out.get().tolist() == [1, 1]
    kernels.backward(simulated_gpu.empty(0, np.float32), nothing, out, accumulate=False)
    assert out.get().tolist() == [0, 0]
    kernels.add(None, nothing, None)


def test_arrays_that_begin_anywhere(simulated_gpu: Any, forms: Forms) -> None:
    form, cupy = Form.of((6, 8), np.float32), simulated_gpu
    values = np.arange(48, dtype=np.float32)
    shifted = cupy.empty(49, np.float32)[1:]
    shifted[...] = cupy.asarray(values)
    out = cupy.empty(8, np.float32)
    Bias(forms).backward(shifted, form, out, accumulate=False)
    assert out.get().tolist() == values.reshape(6, 8).sum(axis=0).tolist()
    Bias(forms).add(shifted, form, cupy.asarray(np.arange(8, dtype=np.float32)))
    assert shifted.get().tolist() == (values + np.tile(np.arange(8), 6)).tolist()
