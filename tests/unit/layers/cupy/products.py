"""What the tests of layers with products share: layers and nets on the simulated GPU beside the numpy backend's in doubles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends import create_backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.layers.base import LayerContext
from paratrain.proto import TRAIN
from tests.gradient_check import LayerRun, set_up_layer

__all__ = ["ROUNDING", "compare", "layer_on_gpu", "run_once", "values"]

Array = npt.NDArray[Any]
ROUNDING = {"float32": 2e-6, "tf32": 3e-3, "float16": 3e-3, "bfloat16": 2e-2}


def values(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def layer_on_gpu(text: str, bottoms: list[Array], precision: str = "float32", **more: Any) -> LayerRun:
    context = LayerContext(CupyBackend(precision), TRAIN)
    run = set_up_layer(text, bottoms, dtype=np.float32, context=context, **more)
    assert type(run.layer).__module__.startswith("paratrain.layers.cupy")
    return run


def run_once(run: LayerRun, seed: int, *, propagate: bool = True) -> list[Array]:
    """Run forward and backward; return tops, bottom diffs and parameter diffs, which held numbers before."""
    for index, blob in enumerate(run.layer.blobs):
        blob.data[...] = values(blob.shape, seed + 10 + index) * 0.2
        blob.diff[...] = values(blob.shape, seed + 20 + index)
    outputs = run.forward()
    for index, top in enumerate(run.tops):
        top.diff[...] = values(top.shape, seed + 30 + index)
    run.layer.backward(run.tops, [propagate] * len(run.bottoms), run.bottoms)
    return [*outputs, *(blob.diff.copy() for blob in (*run.bottoms, *run.layer.blobs))]


def compare(text: str, shape: tuple[int, ...], precision: str = "float32", *, bottom_count: int = 1) -> LayerRun:
    """Run the layer on both backends, twice, and compare all that comes out; return that on the GPU."""
    bottoms = [values(shape, index) for index in range(bottom_count)]
    found = layer_on_gpu(text, bottoms, precision)
    expected = set_up_layer(text, bottoms, context=LayerContext(create_backend("numpy"), TRAIN, dtype=np.float64))
    for repetition in range(2):  # the second finds buffers and copies of the first
        for reference, result in zip(
            run_once(expected, 100 * repetition), run_once(found, 100 * repetition), strict=True
        ):
            tolerance = ROUNDING[precision] * max(float(np.abs(reference).max()), 1.0)
            np.testing.assert_allclose(result, reference, rtol=0, atol=tolerance)
    assert found.layer.is_capturable
    return found
