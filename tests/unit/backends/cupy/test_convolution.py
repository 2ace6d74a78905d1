"""Convolution by im2col and products, and the columns themselves, against the numpy backend in double precision."""

from __future__ import annotations

import logging
from typing import Any

import ml_dtypes  # noqa: F401  # gives numpy the name bfloat16
import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy import convolution as module
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.convolution import CupyConvolution, note_absence_of_cudnn
from paratrain.errors import BackendError

ROUNDING = {"float32": 2e-6, "float64": 1e-13, "float16": 3e-3, "bfloat16": 2e-2}


def random_geometry(seed: int, *, groups: bool = True) -> ConvolutionGeometry:
    rng = np.random.default_rng(seed)
    axes = 1 + seed % 3
    pick = lambda low, high: tuple(int(n) for n in rng.integers(low, high, axes))  # noqa: E731
    kernel, dilation, pad = pick(1, 4), pick(1, 3), pick(0, 3)
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, pad, strict=True)]
    spatial = tuple(n + int(more) for n, more in zip(least, rng.integers(0, 6, axes), strict=True))
    group_count = int(rng.integers(1, 4)) if groups else 1
    channels, outputs = (group_count * int(n) for n in rng.integers(1, 4, 2))
    batch = int(rng.integers(1, 4))
    return ConvolutionGeometry(
        batch, channels, spatial, outputs if groups else 1, kernel, pick(1, 4), pad, dilation, group_count
    )


POINTWISE = ConvolutionGeometry(2, 3, (4, 5), 4, (1, 1), (1, 1), (0, 0), (1, 1))
DEPTHWISE = ConvolutionGeometry(3, 6, (7, 6), 6, (3, 3), (2, 1), (1, 1), (1, 1), 6)
GEOMETRIES = [POINTWISE, DEPTHWISE, *(random_geometry(seed) for seed in range(9))]


class Case:
    """Arrays for a geometry, rounded to a type, and what the numpy backend makes of them in double precision."""

    def __init__(self, g: ConvolutionGeometry, name: str = "float64") -> None:
        rng = np.random.default_rng(7)
        shapes = {
            "bottom": (g.batch, g.channels, *g.spatial),
            "weights": (g.output_channels, g.channels // g.groups, *g.kernel),
            "top": (g.batch, g.output_channels, *g.output_spatial),
        }
        self.bottom, self.weights, self.top_diff = (
            rng.standard_normal(shape).astype(name).astype(float) for shape in shapes.values()
        )
        self.bias = rng.standard_normal(g.output_channels).astype(np.float32).astype(float)
        self.top, self.bottom_diff = np.empty(shapes["top"]), np.empty(shapes["bottom"])
        self.weights_diff, self.bias_diff = np.zeros(shapes["weights"]), np.zeros(g.output_channels)
        reference = create_backend("numpy").convolution(g, np.float64)
        reference.forward(self.bottom, self.weights, self.bias, self.top)
        reference.backward_data(self.top_diff, self.weights, self.bottom_diff)
        reference.backward_weights(self.bottom, self.top_diff, self.weights_diff)
        reference.backward_bias(self.top_diff, self.bias_diff)


def compare(found: Any, expected: Any, rounding: float) -> None:
    """To the rounding of sums of values of size one."""
    values = found.get().astype(float)
    np.testing.assert_allclose(values, expected, rtol=rounding, atol=rounding * max(1.0, np.abs(expected).max()))


def run_all(cupy: Any, convolution: CupyConvolution, case: Case, name: str) -> list[Any]:
    """Every direction once; the results: top, bottom_diff, weights_diff, bias_diff."""
    parameter_type = np.float64 if name == "float64" else np.float32
    bottom, weights, top_diff = (cupy.asarray(a.astype(name)) for a in (case.bottom, case.weights, case.top_diff))
    top, bottom_diff = cupy.empty(top_diff.shape, name), cupy.empty(bottom.shape, name)
    weights_diff, bias_diff = cupy.empty(weights.shape, parameter_type), cupy.empty(len(case.bias), parameter_type)
    convolution.forward(bottom, weights, cupy.asarray(case.bias.astype(parameter_type)), top)
    convolution.backward_data(top_diff, weights, bottom_diff)
    convolution.backward_weights(bottom, top_diff, weights_diff, accumulate=False)
    convolution.backward_bias(top_diff, bias_diff, accumulate=False)
    return [top, bottom_diff, weights_diff, bias_diff]


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_against_numpy(simulated_gpu: Any, geometry: ConvolutionGeometry, name: str) -> None:
    check(simulated_gpu, geometry, name)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("geometry", GEOMETRIES[1:5], ids=str)
def test_narrow_types(simulated_gpu: Any, geometry: ConvolutionGeometry, name: str) -> None:
    check(simulated_gpu, geometry, name)


def check(cupy: Any, geometry: ConvolutionGeometry, name: str) -> None:
    case, convolution = Case(geometry, name), CupyConvolution(CupyBackend(), geometry, name)
    found = run_all(cupy, convolution, case, name)
    rounding = ROUNDING[name]
    for result, expected in zip(found, (case.top, case.bottom_diff, case.weights_diff, case.bias_diff), strict=True):
        compare(result, expected, rounding * (1 if result.dtype == name else 0.1))
    # Gradients of parameters are added, on flat arrays too.
    bottom, top_diff = (cupy.asarray(a.astype(name)).reshape(-1) for a in (case.bottom, case.top_diff))
    convolution.backward_weights(bottom, top_diff, found[2])
    convolution.backward_bias(top_diff, found[3])
    compare(found[2], 2 * case.weights_diff, rounding)
    compare(found[3], 2 * case.bias_diff, rounding)
    # Without a bias, and with a ReLU behind.
    weights, top = cupy.asarray(case.weights.astype(name)), found[0]
    convolution.forward(bottom, weights, None, top.reshape(-1), 0.5)
    product = case.top - case.bias.reshape(-1, *(1,) * len(geometry.spatial))
    compare(top, np.where(product > 0, product, 0.5 * product), rounding)


def test_rounds_of_images_give_the_same(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = ConvolutionGeometry(5, 2, (6, 7), 4, (3, 2), (1, 1), (1, 0), (1, 1), 2)
    case = Case(geometry)
    image_bytes = (2 * 6 + 4) * 6 * 6 * 4
    for images in (1, 2, 5):
        monkeypatch.setattr(module, "_WORKSPACE_BYTES", images * image_bytes)
        backend = CupyBackend()
        convolution = CupyConvolution(backend, geometry, "float32")
        found = run_all(simulated_gpu, convolution, case, "float32")
        for result, expected in zip(
            found, (case.top, case.bottom_diff, case.weights_diff, case.bias_diff), strict=True
        ):
            compare(result, expected, ROUNDING["float32"])
        assert backend.workspace._block.nbytes <= images * image_bytes + 1024


def test_no_allocation_after_the_first_pass_and_the_same_bits(simulated_gpu: Any) -> None:
    import simulated

    case, backend = Case(DEPTHWISE, "bfloat16"), CupyBackend("bfloat16")
    convolution = CupyConvolution(backend, DEPTHWISE, "bfloat16")
    other = CupyConvolution(backend, random_geometry(5), "bfloat16")  # shares the workspace
    cupy = simulated_gpu
    first = [result.get().tobytes() for result in run_all(cupy, convolution, case, "bfloat16")]
    run_all(cupy, other, Case(random_geometry(5)), "bfloat16")
    bottom, weights, top_diff = (cupy.asarray(a.astype("bfloat16")) for a in (case.bottom, case.weights, case.top_diff))
    bias = cupy.asarray(case.bias.astype(np.float32))
    results = [cupy.empty_like(array) for array in (top_diff, bottom)] + [
        cupy.empty(weights.shape, "f4"),
        cupy.empty(6, "f4"),
    ]
    before = dict(simulated.counts)
    convolution.forward(bottom, weights, bias, results[0])
    convolution.backward_data(top_diff, weights, results[1])
    convolution.backward_weights(bottom, top_diff, results[2], accumulate=False)
    convolution.backward_bias(top_diff, results[3], accumulate=False)
    assert [simulated.counts[what] - before.get(what, 0) for what in ("malloc", "allocate", "synchronize")] == [0, 0, 0]
    assert [result.get().tobytes() for result in results] == first


@pytest.mark.parametrize("seed", range(6))
def test_columns(simulated_gpu: Any, seed: int) -> None:
    geometry = random_geometry(seed, groups=False)
    rng, cupy = np.random.default_rng(seed), simulated_gpu
    reference, im2col = create_backend("numpy").im2col(geometry, np.float64), CupyBackend().im2col(geometry, np.float64)
    shape = (geometry.batch, geometry.channels, *geometry.spatial)
    depth = geometry.channels * int(np.prod(geometry.kernel))
    columns_shape = (geometry.batch, depth, *geometry.output_spatial)
    bottom, columns, expected = rng.standard_normal(shape), cupy.empty(columns_shape), np.empty(columns_shape)
    im2col.forward(cupy.asarray(bottom), columns)
    reference.forward(bottom, expected)
    np.testing.assert_array_equal(columns.get(), expected)
    columns_diff, bottom_diff, expected_diff = rng.standard_normal(columns_shape), cupy.empty(shape), np.empty(shape)
    im2col.backward(cupy.asarray(columns_diff), bottom_diff)
    reference.backward(columns_diff, expected_diff)
    np.testing.assert_allclose(bottom_diff.get(), expected_diff, rtol=1e-13, atol=1e-13)


def test_empty_batch(simulated_gpu: Any) -> None:
    geometry = ConvolutionGeometry(0, 2, (4,), 3, (2,), (1,), (0,), (1,))
    convolution, cupy = CupyConvolution(CupyBackend(), geometry, "float32"), simulated_gpu
    bottom, top, weights = cupy.empty((0, 2, 4), "f4"), cupy.empty((0, 3, 3), "f4"), cupy.ones((3, 2, 2), "f4")
    convolution.forward(bottom, weights, cupy.ones(3, "f4"), top)
    convolution.backward_data(top, weights, bottom)
    convolution.backward_weights(bottom, top, weights)
    assert (weights.get() == 1).all()
    convolution.backward_weights(bottom, top, weights, accumulate=False)
    assert (weights.get() == 0).all()


def test_four_axes_are_refused(simulated_gpu: Any) -> None:
    ones = (1, 1, 1, 1)
    with pytest.raises(BackendError, match=r"up to 3 spatial axes; found 4, \(2, 2, 2, 2\): .*CPU"):
        CupyConvolution(
            CupyBackend(), ConvolutionGeometry(1, 1, (2, 2, 2, 2), 1, ones, ones, (0, 0, 0, 0), ones), "float32"
        )


def test_one_line_tells_that_cudnn_is_absent(caplog: pytest.LogCaptureFixture) -> None:
    note_absence_of_cudnn.cache_clear()
    with caplog.at_level(logging.INFO, "paratrain"):
        for _ in range(3):
            note_absence_of_cudnn("cuDNN is not installed")
    assert [record.message for record in caplog.records] == [
        "Convolutions are computed by im2col and cuBLAS, more slowly and with more memory: cuDNN is not installed"
    ]
