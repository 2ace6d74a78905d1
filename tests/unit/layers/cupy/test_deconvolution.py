"""Deconvolution and Im2col on the simulated GPU: Caffe's figures, and the numpy backend's in doubles."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.cudnn.convolution import CudnnConvolution
from paratrain.blob import MemorySlice, SyncedMemory
from paratrain.layers.cupy.convolving import ByProducts
from paratrain.layers.cupy.deconvolution import CupyDeconvolutionLayer
from paratrain.layers.cupy.im2col import CupyIm2colLayer
from tests.gradient_check import LayerRun
from tests.stand_in_cudnn import stand_in_cudnn
from tests.unit.layers.cupy.products import ROUNDING, compare, layer_on_gpu, run_once, values
from tests.unit.layers.golden import golden_names, run_golden_case


def kernel_of(run: LayerRun) -> Any:
    assert isinstance(run.layer, CupyDeconvolutionLayer)
    return run.layer._kernel


def layer(kind: str, settings: str) -> str:
    return f'name: "d" type: "{kind}" convolution_param {{ {settings} }}'


@pytest.mark.parametrize("name", golden_names("deconv"))
def test_deconvolution_agrees_with_caffe(name: str) -> None:
    assert isinstance(run_golden_case(name, backend="cupy").layer, CupyDeconvolutionLayer)


@pytest.mark.parametrize("name", golden_names("im2col"))
def test_im2col_agrees_with_caffe(name: str) -> None:
    assert isinstance(run_golden_case(name, backend="cupy").layer, CupyIm2colLayer)


CASES = pytest.mark.parametrize(
    ("settings", "shape", "bottom_count"),
    [
        ("num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 2", (2, 6, 4, 3), 1),
        ("num_output: 3 kernel_size: 2 stride: 2 dilation: 2 bias_term: false", (3, 2, 5), 2),
        ("num_output: 2 kernel_size: 2 axis: 2", (2, 1, 3, 2, 3, 2), 1),
    ],
)


@pytest.mark.parametrize("precision", list(ROUNDING))
@CASES
def test_deconvolution_by_cudnn(settings: str, shape: tuple[int, ...], bottom_count: int, precision: str) -> None:
    run = compare(layer("Deconvolution", settings), shape, precision, bottom_count=bottom_count)
    assert isinstance(kernel_of(run), CudnnConvolution)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@CASES
def test_deconvolution_without_cudnn(
    settings: str, shape: tuple[int, ...], bottom_count: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paratrain.backends.cupy.cudnn.runner.problem", lambda: "there is none in this test")
    run = compare(layer("Deconvolution", settings), shape, precision, bottom_count=bottom_count)
    assert isinstance(kernel_of(run), ByProducts)


def test_products_take_over_where_cudnn_has_no_kernel_for_a_gradient(caplog: pytest.LogCaptureFixture) -> None:
    cudnn = stand_in_cudnn()
    cudnn.refusals.append(lambda steps: "no engine" if "wgrad" in steps else None)
    text, shape = layer("Deconvolution", "num_output: 2 kernel_size: 2"), (1, 2, 3)
    try:
        with caplog.at_level(logging.INFO, "paratrain"):
            run = compare(text, shape)
    finally:
        cudnn.refusals.clear()
    assert isinstance(kernel_of(run), ByProducts)
    assert any("Layer d is computed by im2col and matrix products" in record.message for record in caplog.records)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_im2col_against_doubles(precision: str) -> None:
    compare(layer("Im2col", "kernel_size: 3 stride: 2 pad: 1 dilation: 2"), (2, 3, 6, 7), precision)


def test_parts_of_other_blobs_get_float32(simulated_gpu: Any) -> None:
    for text, count in (
        (layer("Deconvolution", "num_output: 3 kernel_size: 2"), 2 * 3 * 5),
        (layer("Im2col", "kernel_size: 2"), 2 * 4 * 3),
    ):
        bottom = values((2, 2, 4), 1)
        expected = run_once(layer_on_gpu(text, [bottom]), 0)
        run = layer_on_gpu(text, [bottom], "bfloat16")
        run.tops[0].use_memory(data=MemorySlice(SyncedMemory(100), 4, 4 + count))
        found = run_once(run, 0)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
