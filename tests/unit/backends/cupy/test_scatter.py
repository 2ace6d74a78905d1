"""Values that go to places which several name: in order, as numpy does it, to the bit."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.layers.base import LayerContext
from paratrain.proto import TRAIN
from tests.gradient_check import set_up_layer


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("count", "places"), [(0, 5), (1, 1), (3000, 7), (3000, 5000)])
def test_adding_and_putting(count: int, places: int, dtype: Any) -> None:
    gpu, host = create_backend("cupy"), create_backend("numpy")
    random = np.random.default_rng(count)
    where = random.integers(0, places, count)
    values, target = (random.normal(size=size).astype(dtype) for size in (count, places))
    for name in ("add_at", "put_at"):
        found, expected = gpu.xp.asarray(target), target.copy()
        getattr(gpu, name)(found, gpu.xp.asarray(where), gpu.xp.asarray(values))
        getattr(host, name)(expected, where, values)
        np.testing.assert_array_equal(found.get(), expected, strict=True)


def backward(layer: str, bottoms: Any, backend: str) -> list[Any]:
    context = LayerContext(create_backend(backend), TRAIN, np.float32)
    run = set_up_layer(layer, bottoms, context=context)
    run.forward()
    run.tops[0].diff[...] = np.random.default_rng(2).normal(size=run.tops[0].shape)
    run.layer.backward(run.tops, [True, False], run.bottoms)
    return [run.tops[0].data.copy(), run.bottoms[0].diff.copy()]


def test_layers_that_name_a_place_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions that overlap, and a mask that names places several times; nothing goes through CuPy's atomics."""
    random = np.random.default_rng(1)
    x = random.normal(size=(2, 3, 9, 9)).astype(np.float32)
    corners = np.sort(random.uniform(0, 9, (30, 2, 2)), axis=1).reshape(30, 4)[:, [0, 1, 2, 3]]
    regions = np.concatenate([random.integers(0, 2, (30, 1)), corners], axis=1).astype(np.float32)
    mask = random.integers(0, 20, (2, 3, 9, 9)).astype(np.float32)
    cases = (
        ('type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 3 spatial_scale: 1 }', [x, regions]),
        ('type: "Upsample" upsample_param { scale: 2 }', [x, mask]),
    )
    expected = [backward(layer, bottoms, "numpy") for layer, bottoms in cases]
    cupy: Any = importlib.import_module("cupy")
    monkeypatch.delattr(type(cupy.add), "at")
    for (layer, bottoms), wanted in zip(cases, expected, strict=True):
        for found, values in zip(backward(layer, bottoms, "cupy"), wanted, strict=True):
            np.testing.assert_array_equal(found, values)
