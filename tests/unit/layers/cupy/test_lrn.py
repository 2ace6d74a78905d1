"""LRN on the simulated GPU, in all forms, against Caffe and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.base import LocalResponseGeometry
from paratrain.backends.cupy.backend import CupyBackend
from tests.unit.layers.cupy.agreement import agree
from tests.unit.layers.cupy.passes import FORMS
from tests.unit.layers.golden import golden_names, run_golden_case


@pytest.mark.parametrize("name", golden_names("lrn"))
def test_agrees_with_caffe(name: str) -> None:
    run_golden_case(name, backend="cupy")


@pytest.mark.parametrize("name", [*FORMS, "float32-bfloat16 last"])
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (1, (2, 3, 4, 5)),
        (3, (2, 40, 3, 3)),
        (5, (3, 16, 7, 11)),  # several tiles, that end amid a pixel
        (5, (2, 2, 5, 3)),  # a window that reaches beyond all channels
        (31, (1, 24, 5)),
        (5, (3, 8)),
    ],
)
def test_across_channels(size: int, shape: tuple[int, ...], name: str) -> None:
    name, _, top_name = name.partition("-")
    for more in ("alpha: 0.5 beta: 0.75 k: 2", "alpha: 2 beta: 0.6"):
        layer = f'type: "LRN" lrn_param {{ local_size: {size} {more} }}'
        agree(layer, [images(shape)], [name], top_names=[top_name or name], factor=3)


def test_windows_too_wide_for_a_block() -> None:
    layer = 'type: "LRN" lrn_param { local_size: 4001 alpha: 2 }'
    agree(layer, [images((1, 1500, 2, 1))], ["float32 last"], factor=10)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [3, 5, 15])
def test_within_channels(size: int, name: str) -> None:
    layer = f'type: "LRN" lrn_param {{ norm_region: WITHIN_CHANNEL local_size: {size} alpha: 0.5 k: 3 }}'
    agree(layer, [images((2, 8, 7, 6))], [name], factor=3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_primitive(dtype: Any) -> None:
    geometry = LocalResponseGeometry((2, 7, 3, 4), 3, 0.7, 0.75, 1.5)
    x, dy = (images(geometry.shape, seed).astype(dtype) for seed in (1, 2))
    results = []
    for backend in (create_backend("numpy"), CupyBackend()):
        xp = backend.xp
        y, dx, bottom = xp.empty(x.shape, dtype), xp.empty(x.shape, dtype), xp.asarray(x)
        normalization = backend.local_response_normalization(geometry, dtype)
        normalization.forward(bottom, y)
        normalization.backward(bottom, y, xp.asarray(dy), dx)
        results.append([array if xp is np else array.get() for array in (y, dx)])
    for ours, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 if dtype is np.float32 else 1e-14)


def images(shape: tuple[int, ...], seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(0.3, 1, size=shape)
