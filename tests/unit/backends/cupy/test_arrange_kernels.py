"""The kernels that change order and type, on the simulated GPU, against numpy's transposes."""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401  # gives numpy the name bfloat16
import numpy as np
import pytest

from paratrain.backends.cupy.modules import STORAGE_NAMES, KernelModule

SHAPES = ((1, 1, 1), (2, 3, 35), (3, 17, 49), (2, 64, 700))
"""The last has more values than one round of all threads."""


@pytest.mark.parametrize("name", STORAGE_NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_keep_their_places(simulated_gpu: Any, name: str, shape: tuple[int, int, int]) -> None:
    cupy = simulated_gpu
    _, channels, pixels = shape
    kernels = KernelModule("arrange", name)
    plain_type = np.float64 if name == "float64" else np.float32
    host = np.random.default_rng(1).standard_normal(shape).astype(plain_type)
    plain = cupy.asarray(host)
    second, last = cupy.empty(shape, name), cupy.empty((shape[0], pixels, channels), name)

    kernels.launch("to_arranged", plain.size, plain, second, channels, pixels, 0)
    kernels.launch("to_arranged", plain.size, plain, last, channels, pixels, 1)
    rounded = host.astype(name)
    np.testing.assert_array_equal(second.get(), rounded)
    np.testing.assert_array_equal(last.get(), rounded.transpose(0, 2, 1))

    back = cupy.empty(shape, plain_type)
    for array, channels_last in ((second, 0), (last, 1)):
        kernels.launch("to_plain", plain.size, array, back, channels, pixels, channels_last, False)
        np.testing.assert_array_equal(back.get(), rounded.astype(plain_type))
        kernels.launch("to_plain", plain.size, array, back, channels, pixels, channels_last, True)
        np.testing.assert_array_equal(back.get(), rounded.astype(plain_type) * 2)

    exchanged = cupy.empty_like(last)
    kernels.launch("exchange_order", plain.size, second, exchanged, channels, pixels, 1)
    np.testing.assert_array_equal(exchanged.get(), last.get())
    exchanged = cupy.empty_like(second)
    kernels.launch("exchange_order", plain.size, last, exchanged, channels, pixels, 0)
    np.testing.assert_array_equal(exchanged.get(), second.get())
