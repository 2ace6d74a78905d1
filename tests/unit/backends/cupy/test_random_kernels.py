"""Random numbers drawn on the simulated GPU: those of paratrain.random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.modules import KernelModule
from paratrain.layers.base import Clock, LayerContext
from paratrain.layers.effective_batch import draw_uniform
from paratrain.proto import TRAIN
from paratrain.random import hash_key, uniform_rows
from tests.gradient_check import set_up_layer


@pytest.mark.parametrize("rows", [range(1), range(7), range(2, 23, 3), range(2**31 - 3, 2**31 - 1)])
@pytest.mark.parametrize("inner", [1, 5, 3001])
def test_rows(simulated_gpu: Any, rows: range, inner: int) -> None:
    backend = CupyBackend()
    for dtype in (np.float32, np.float64):
        for key in (0, hash_key(3, "a layer"), 2**64 - 1):
            out, expected = simulated_gpu.empty((len(rows), inner), dtype), np.empty((len(rows), inner), dtype)
            backend.uniform_rows(key, rows, out)
            uniform_rows(key, rows, inner, expected)
            np.testing.assert_array_equal(out.get(), expected)


def test_a_key_on_the_gpu(simulated_gpu: Any) -> None:
    kernels, key = KernelModule("random", np.float32), hash_key(1)
    place, out, expected = (
        simulated_gpu.zeros(1, np.uint64),
        simulated_gpu.empty(12, np.float32),
        np.empty((3, 4), np.float32),
    )
    kernels.launch_blocks("write_key", 1, 1, place, np.uint64(key))
    kernels.launch("uniform_rows", 12, out, place, np.uint64(0), 4, 1, 2)
    uniform_rows(key, range(1, 7, 2), 4, expected)
    np.testing.assert_array_equal(out.get().reshape(3, 4), expected)


def test_layers_draw_the_same_on_any_backend(simulated_gpu: Any) -> None:
    from paratrain.backends import create_backend

    drawn = []
    for backend in (CupyBackend(), create_backend("numpy")):
        context = LayerContext(backend=backend, phase=TRAIN, seed=4, rank=1, size=3, clock=Clock(7, 1))
        layer = set_up_layer('name: "drop" type: "Dropout"', [np.zeros(2)], context=context).layer
        out = backend.xp.empty((4, 3, 5), np.float32)
        draw_uniform(layer, "pooling", out)
        drawn.append(out.get() if hasattr(out, "get") else out)
        scalar = backend.xp.empty((), np.float32)
        draw_uniform(layer, "pooling", scalar)
        drawn.append(scalar.get() if hasattr(scalar, "get") else scalar)
    for ours, plain in zip(drawn[:2], drawn[2:], strict=True):
        np.testing.assert_array_equal(ours, plain)
