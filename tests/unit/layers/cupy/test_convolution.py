"""Convolution on the simulated GPU: Caffe's figures, the numpy backend's in doubles, with cuDNN and without."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.cudnn import library
from paratrain.backends.cupy.cudnn.convolution import CudnnConvolution
from paratrain.backends.cupy.forms import Form
from paratrain.blob import GradientMemory, MemorySlice, SyncedMemory
from paratrain.layers.cupy.convolution import CupyConvolutionLayer
from tests.simulated_gpu_path import IS_REAL
from tests.stand_in_cudnn import stand_in_cudnn
from tests.unit.layers.cupy.products import ROUNDING, compare, layer_on_gpu, run_once, values
from tests.unit.layers.golden import golden_names, run_golden_case

CASES = [
    ("num_output: 6 kernel_size: 3 pad: 1", (2, 3, 5, 6), 1),
    ("num_output: 4 kernel_h: 3 kernel_w: 1 stride_h: 2 pad_w: 1 group: 2", (2, 6, 7, 4), 1),
    ("num_output: 5 kernel_size: 2 dilation: 2 bias_term: false", (3, 1, 5, 5), 2),
    ("num_output: 8 kernel_size: 3 stride: 2", (2, 4, 9), 1),
    ("num_output: 4 kernel_size: 2 pad: 1", (2, 2, 3, 4, 3), 1),
    ("num_output: 3 kernel_size: 2 axis: 2", (2, 2, 3, 3, 4), 1),
    ("num_output: 8 kernel_size: 4", (3, 8, 4, 4), 1),
    ("num_output: 8 kernel_size: 1", (3, 8, 3, 2), 1),
]


def layer(settings: str, kind: str = "Convolution") -> str:
    return f'name: "c" type: "{kind}" convolution_param {{ {settings} }}'


def kernel_of(run: Any) -> Any:
    assert isinstance(run.layer, CupyConvolutionLayer)
    return run.layer._kernel


@pytest.fixture
def no_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.backends.cupy.cudnn.runner.problem", lambda: "there is none in this test")


@pytest.fixture
def refusals(simulated_gpu: Any) -> Iterator[list[Any]]:
    """What the stand-in for cuDNN asks whether it has engines."""
    cudnn = stand_in_cudnn()
    yield cudnn.refusals
    cudnn.refusals.clear()


@pytest.mark.parametrize("name", golden_names("conv"))
def test_agrees_with_caffe(name: str) -> None:
    assert isinstance(kernel_of(run_golden_case(name, backend="cupy")), CudnnConvolution)


@pytest.mark.parametrize("precision", list(ROUNDING))
@pytest.mark.parametrize(("text", "shape", "bottom_count"), CASES)
def test_against_doubles(text: str, shape: tuple[int, ...], bottom_count: int, precision: str) -> None:
    run = compare(layer(text), shape, precision, bottom_count=bottom_count)
    assert isinstance(kernel_of(run), CudnnConvolution)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("text", "shape", "bottom_count"), CASES)
def test_without_cudnn(
    text: str,
    shape: tuple[int, ...],
    bottom_count: int,
    precision: str,
    no_cudnn: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = compare(layer(text), shape, precision, bottom_count=bottom_count)
    assert not isinstance(kernel_of(run), CudnnConvolution)


@pytest.mark.parametrize("kind", ["DepthwiseConvolution", "ConvolutionDepthwise"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_depthwise(kind: str, precision: str) -> None:
    compare(layer("num_output: 8 kernel_size: 3 pad: 1", kind), (2, 4, 5, 5), precision)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[str, tuple[int, ...]]:
    """The settings of a convolution over one to three axes, each with sizes of its own, and the shape of its bottom."""
    fields, sizes = [], []
    for _ in range(draw(st.integers(1, 3))):
        kernel, dilation, pad = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 2))
        fields.append(f"kernel_size: {kernel} dilation: {dilation} pad: {pad} stride: {draw(st.integers(1, 3))}")
        sizes.append(max(dilation * (kernel - 1) + 1 - 2 * pad, 1) + draw(st.integers(0, 3)))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, outputs = (groups * draw(st.sampled_from([1, 3, 8])) for _ in range(2))
    bias = "" if draw(st.booleans()) else "bias_term: false"
    text = f"num_output: {outputs} group: {groups} {' '.join(fields)} {bias}"
    return text, (draw(st.integers(1, 2)), channels, *sizes)


@given(geometries(), st.sampled_from(["float32", "tf32", "float16"]))
@settings(max_examples=25, derandomize=True)
def test_random_geometries_against_doubles(case: tuple[str, tuple[int, ...]], precision: str) -> None:
    compare(layer(case[0]), case[1], precision)


def test_values_lie_as_tensor_cores_like_them(simulated_gpu: Any) -> None:
    text, shape = layer("num_output: 8 kernel_size: 3"), (2, 3, 5, 5)
    for precision, expected in (
        ("float32", Form.of((2, 8, 3, 3), "float32")),
        ("tf32", Form.of((2, 8, 3, 3), "float32", channels_last=True)),
        ("bfloat16", Form.of((2, 8, 3, 3), "bfloat16", channels_last=True)),
    ):
        run = layer_on_gpu(text, [values(shape, 1)], precision)
        run.layer.forward(run.bottoms, run.tops)
        assert run.layer.forms.found(run.tops[0].data_memory, (2, 8, 3, 3)) == expected


def test_weights_are_converted_once_for_each_change(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = layer_on_gpu(layer("num_output: 2 kernel_size: 2"), [np.ones((1, 3, 3, 3))], "bfloat16")
    launched: list[str] = []
    module = run.layer.forms.kernels("weights", "bfloat16")
    launch = module.launch
    monkeypatch.setattr(module, "launch", lambda name, *more: (launched.append(name), launch(name, *more)))
    for number in (1.0, 2.0):
        run.layer.blobs[0].data[...] = number
        run.layer.blobs[1].data[...] = number
        for _ in range(2):
            assert set(run.forward()[0].reshape(-1)) == {13 * number}
        run.layer.backward(run.tops, [True], run.bottoms)
    assert launched == ["prepare_weights"] * 2


def test_parts_of_other_blobs(simulated_gpu: Any) -> None:
    text, bottom = layer("num_output: 3 kernel_size: 2"), values((2, 2, 4, 3), 1)
    expected = run_once(layer_on_gpu(text, [bottom]), 0)
    for side in ("bottom", "top"):
        run = layer_on_gpu(text, [bottom], "bfloat16")
        if side == "top":
            run.tops[0].use_memory(data=MemorySlice(SyncedMemory(100), 5, 5 + 2 * 3 * 3 * 2))
        else:
            memory = SyncedMemory(100)
            memory.mutable_host()[3 : 3 + bottom.size] = bottom.reshape(-1)
            run.bottoms[0].use_memory(data=MemorySlice(memory, 3, 3 + bottom.size))
        for found, wanted in zip(run_once(run, 0), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_parameters_at_any_address(simulated_gpu: Any) -> None:
    text, bottom = layer("num_output: 3 kernel_size: 3"), values((2, 2, 4, 4), 1)
    expected = run_once(layer_on_gpu(text, [bottom]), 0)
    run = layer_on_gpu(text, [bottom])
    for start, blob in zip((1, 60), run.layer.blobs, strict=True):
        data, diff = (MemorySlice(SyncedMemory(100), start, start + blob.count) for _ in range(2))
        blob.use_memory(data=data, diff=diff)
    for found, wanted in zip(run_once(run, 0), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_that_are_written_first(start: int, precision: str, simulated_gpu: Any) -> None:
    results = []
    for is_cleared in (False, True):
        run = layer_on_gpu(layer("num_output: 4 kernel_size: 3"), [values((2, 2, 4, 4), 1)], precision)
        run.layer.blobs[0].data[...] = values((4, 2, 3, 3), 2)
        whole = GradientMemory(SyncedMemory(100))
        whole.mutable_host().fill(7)
        for place, blob in zip((start, start + 72), run.layer.blobs, strict=True):
            blob.use_memory(diff=whole.slice(place, place + blob.count))
        run.forward()
        run.tops[0].diff[...] = values(run.tops[0].shape, 3)
        for _ in range(2):
            if is_cleared:
                whole.clear()
            run.layer.backward(run.tops, [True], run.bottoms)
        results.append(whole.host().copy())
    added, written = results[0][start : start + 76], results[1][start : start + 76]
    np.testing.assert_allclose(added, 7 + 2 * written, rtol=0, atol=2e-5)
    assert set(results[1][:start]) | set(results[1][start + 76 :]) == {7}


def test_an_empty_batch() -> None:
    run = layer_on_gpu(layer("num_output: 2 kernel_size: 2"), [np.zeros((0, 1, 3, 3))])
    assert run_once(run, 0)[0].shape == (0, 2, 2, 2)


def test_shapes_that_change() -> None:
    run = layer_on_gpu(layer("num_output: 2 kernel_size: 2"), [values((2, 1, 3, 3), 1)], "bfloat16")
    run.forward()
    run.bottoms[0].reshape(1, 1, 5, 4)
    run.bottoms[0].data[...] = values((1, 1, 5, 4), 2)
    run.layer.reshape(run.bottoms, run.tops)
    found = run_once(run, 0)
    expected = run_once(layer_on_gpu(layer("num_output: 2 kernel_size: 2"), [values((1, 1, 5, 4), 2)], "bfloat16"), 0)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("refused", ["fprop", "dgrad", "wgrad", "bias", "relu"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_cudnn_refuses_is_computed_all_the_same(
    refused: str, precision: str, refusals: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    refusals.append(lambda steps: "a test" if refused in steps else None)
    with caplog.at_level(logging.INFO):
        run = compare(layer("num_output: 4 kernel_size: 3"), (2, 3, 5, 5), precision)
    told = [record.message for record in caplog.records if "Layer c is computed by im2col" in record.message]
    assert len(told) == (refused not in ("bias", "relu"))
    assert all(f"cuDNN has no plan for {refused} " in line and "a test" in line for line in told)
    assert isinstance(kernel_of(run), CudnnConvolution) == (refused in ("bias", "relu"))


def test_tf32_is_not_used_unless_asked_for(simulated_gpu: Any) -> None:
    text, bottom = layer("num_output: 1 kernel_size: 1 bias_term: false"), np.full((1, 1, 2, 2), 1 + 2.0**-12)
    fine = 1 + 2.0**-12
    for precision, expected in (("float32", fine), ("tf32", 1.0)):
        run = layer_on_gpu(text, [bottom], precision)
        run.layer.blobs[0].data[...] = 1
        found = set(run.forward()[0].reshape(-1))
        # The real cuDNN need not use tensor cores for so little.
        assert found == {np.float32(expected)} or (IS_REAL and precision == "tf32" and found == {np.float32(fine)})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("without", [False, True])
def test_a_recorded_pass_gives_the_same_bits(precision: str, without: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if without:
        monkeypatch.setattr("paratrain.backends.cupy.cudnn.runner.problem", lambda: "there is none in this test")
    run = layer_on_gpu(layer("num_output: 4 kernel_size: 3 pad: 1"), [values((2, 3, 5, 5), 1)], precision)
    eager = run_once(run, 0)
    device, made = run.layer.gpu.device, run.layer

    def give() -> None:
        for blob in made.blobs:
            blob.diff_memory.mutable_device(device).fill(0)
        made.forward(run.bottoms, run.tops)
        made.backward(run.tops, [True], run.bottoms)

    give()
    eager = [blob.diff.copy() for blob in (*run.bottoms, *made.blobs)]
    give()
    for blob in made.blobs:
        blob.data_memory.mutable_device(device)
    recorded = run.layer.gpu.record(give)
    assert recorded is not None
    for blob in made.blobs:
        blob.diff_memory.mutable_device(device).fill(5)
    recorded.replay()
    for before, blob in zip(eager, (*run.bottoms, *made.blobs), strict=True):
        assert before.tobytes() == blob.diff.tobytes()


def test_a_missing_library_is_told_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, simulated_gpu: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import cudnn

    library.problem.cache_clear()

    def missing() -> int:
        raise RuntimeError("Unable to find symbol cudnnCreate")

    monkeypatch.setattr(cudnn, "backend_version", missing)
    problem = library.problem()
    assert problem is not None and "libcudnn.so.9" in problem and "pip install 'paratrain[cuda13]'" in problem
    library.problem.cache_clear()
    with caplog.at_level(logging.INFO):
        assert CupyBackend().cudnn is None
    assert "by im2col and cuBLAS" in caplog.text and "libcudnn.so.9" in caplog.text
    library.problem.cache_clear()
