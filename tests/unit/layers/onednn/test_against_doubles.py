"""Layers and nets on oneDNN, values and gradients, against the numpy backend in float64: uncommon shapes above all."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.backends import create_backend
from paratrain.backends.onednn.library import load
from paratrain.layers import LayerContext
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from tests.gradient_check import LayerRun, distinct_values, set_up_layer
from tests.optional import need_onednn

Array = npt.NDArray[Any]
COUNTS = [1, 3, 7, 17, 32]
"""Of channels: few, odd, one more than a block of 16, and whole blocks."""
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def _onednn() -> None:
    need_onednn()


def agree(layer: str, bottom: Array, in_place: bool = False) -> OneDnnLayer[Any]:
    """Run two forward and backward passes on both backends and compare all that comes out; return the layer on oneDNN."""
    bottom = bottom.astype(np.float32)
    reference = set_up_layer(layer, [bottom], dtype=np.float64, in_place=in_place)
    found = set_up_layer(layer, [bottom], dtype=np.float32, backend="onednn", in_place=in_place)
    for number in range(2):  # the second finds what the first has left, and other values
        results = [_run(run, bottom * (1 + number), number) for run in (reference, found)]
        for index, (expected, value) in enumerate(zip(*results, strict=True)):
            _close(value, expected, f"array {index} of pass {number}")
    assert isinstance(found.layer, OneDnnLayer)
    return found.layer


def _run(run: LayerRun, bottom: Array, seed: int) -> list[Array]:
    random = np.random.default_rng(100 + seed)
    run.bottoms[0].data[...] = bottom
    for index, blob in enumerate(run.layer.blobs):
        if index not in run.layer.statistic_blobs:
            blob.data[...] = random.normal(size=blob.shape).astype(np.float32)
            blob.diff[...] = random.normal(size=blob.shape).astype(np.float32)
    outputs = run.forward()
    for top in run.tops:
        top.diff[...] = random.normal(size=top.shape).astype(np.float32)
    run.layer.backward(run.tops, [True], run.bottoms)
    blobs = run.layer.blobs
    return [*outputs, *[blob.diff.copy() for blob in (*run.bottoms, *blobs)], *[blob.data.copy() for blob in blobs]]


def _close(found: Array, expected: Array, what: str) -> None:
    largest = max(float(np.abs(expected).max(initial=0)), 1e-3)
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=TOLERANCE, err_msg=what)


def images(shape: tuple[int, ...], seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


@st.composite
def sliding(draw: st.DrawFn, name: str) -> tuple[str, tuple[int, ...]]:
    """A Convolution or Deconvolution over one to three axes, each with sizes of its own, and the shape of its bottom."""
    kernels, strides, dilations, pads, sizes = (list[int]() for _ in range(5))
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        extent = dilation * (kernel - 1) + 1
        if name == "Convolution":
            pad = draw(st.integers(0, kernel))
            size = max(extent - 2 * pad, 1) + draw(st.integers(0, 5))
        else:
            size = draw(st.integers(1, 5))
            pad = draw(st.integers(0, min(kernel, (stride * (size - 1) + extent - 1) // 2)))
        for values, value in zip(
            (kernels, strides, dilations, pads, sizes), (kernel, stride, dilation, pad, size), strict=True
        ):
            values.append(value)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, outputs = (groups * draw(st.sampled_from(COUNTS[:4])) for _ in range(2))
    named = zip(("kernel_size", "stride", "dilation", "pad"), (kernels, strides, dilations, pads), strict=True)
    fields = " ".join(f"{field}: {value}" for field, values in named for value in values)
    bias = "" if draw(st.booleans()) else "bias_term: false"
    text = f'type: "{name}" convolution_param {{ num_output: {outputs} group: {groups} {fields} {bias} }}'
    return text, (draw(st.integers(1, 3)), channels, *sizes)


@given(sliding("Convolution"))
@settings(max_examples=60, derandomize=True)
def test_convolution(case: tuple[str, tuple[int, ...]]) -> None:
    agree(case[0], images(case[1]))


@given(sliding("Deconvolution"))
@settings(max_examples=40, derandomize=True)
def test_deconvolution(case: tuple[str, tuple[int, ...]]) -> None:
    agree(case[0], images(case[1]))


@pytest.mark.parametrize(
    ("geometry", "shape"),
    [
        ("num_output: 1 kernel_h: 3 kernel_w: 2 pad_h: 3 pad_w: 2", (1, 17, 5, 1)),  # no kernel for the weights' gradient
        # Kernels that are wrong:
        ("num_output: 51 group: 3 kernel_size: 4 kernel_size: 3 kernel_size: 1 stride: 2 pad: 3 pad: 1 pad: 0", (2, 51, 3, 2, 4)),
        ("num_output: 3 kernel_size: 4 stride: 2 stride: 3 stride: 1 pad: 3 pad: 1 pad: 2", (3, 9, 2, 6, 6)),
    ],
)  # fmt: skip
def test_convolutions_that_onednn_does_not_get_right_are_left_to_numpy(geometry: str, shape: tuple[int, ...]) -> None:
    layer = agree(f'type: "Convolution" convolution_param {{ {geometry} }}', images(shape))
    assert layer.latest_kernel is None


@pytest.mark.parametrize("bias", ["", "bias_term: false"])
@pytest.mark.parametrize("shape", [(2, 1024, 3, 2), (3, 2048, 1, 1), (2, 1040, 2, 2)])
def test_one_pixel_kernels_of_many_channels(shape: tuple[int, ...], bias: str) -> None:
    """Their gradients are gathered from blocks in one of two ways."""
    layer = agree(f'type: "Convolution" convolution_param {{ num_output: 32 kernel_size: 1 {bias} }}', images(shape))
    assert layer.latest_kernel is not None


@st.composite
def pooling(draw: st.DrawFn) -> tuple[str, tuple[int, ...], bool]:
    """Pooling whose windows may reach over the border, the shape of its bottom, and whether oneDNN has its averages."""
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    stride = [draw(st.integers(1, 4)) for _ in range(2)]
    pad = [draw(st.integers(0, size - 1)) for size in kernel]
    sizes = [size + draw(st.integers(0, 7)) for size in kernel]
    shape = (draw(st.integers(1, 3)), draw(st.sampled_from(COUNTS)), *sizes)
    method = draw(st.sampled_from(["MAX", "AVE"]))
    fields = " ".join(
        f"{field}_{axis}: {values[index]}" for field, values in (("kernel", kernel), ("stride", stride), ("pad", pad))
        for index, axis in enumerate("hw")
    )  # fmt: skip
    if any(step > size for step, size in zip(stride, kernel, strict=True)):
        fields += " round_mode: FLOOR"  # rounded up, the last window may begin behind the image
    return f'type: "Pooling" pooling_param {{ pool: {method} {fields} }}', shape, method == "MAX" or not any(pad)


@given(pooling())
@settings(max_examples=80, derandomize=True)
def test_pooling(case: tuple[str, tuple[int, ...], bool]) -> None:
    text, shape, has_kernel = case
    layer = agree(text, distinct_values(shape, np.random.default_rng(2)))
    assert layer.latest_kernel is not None or not has_kernel


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize("more", ["alpha: 0.5 beta: 0.75 k: 2", "alpha: 2 beta: 0.6"])
def test_lrn(more: str, channels: int, size: int) -> None:
    layer = agree(f'type: "LRN" lrn_param {{ local_size: {size} {more} }}', images((2, channels, 5, 3)))
    assert layer.latest_kernel is None or size in (3, 5)


def test_lrn_within_channels() -> None:
    layer = agree(
        'type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 }', images((2, 16, 5, 4))
    )
    assert layer.latest_kernel is None


@pytest.mark.parametrize("transpose", ["", "transpose: true"])
@pytest.mark.parametrize(
    ("samples", "inputs", "outputs"), [(1, 1, 1), (3, 7, 17), (65, 31, 3), (5, 601, 449), (64, 512, 513)]
)
def test_inner_product(samples: int, inputs: int, outputs: int, transpose: str) -> None:
    """Those of many weights and few samples are computed the other way round."""
    layer = agree(
        f'type: "InnerProduct" inner_product_param {{ num_output: {outputs} {transpose} }}', images((samples, inputs))
    )
    assert layer.latest_kernel is not None


def test_inner_product_of_the_most_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.backends.onednn.inner_product._MOST_WEIGHTS", 1 << 18)
    layer = agree('type: "InnerProduct" inner_product_param { num_output: 513 }', images((5, 520)))
    kernel: Any = layer.latest_kernel
    assert kernel._wide_backward is not None or load().block_width < 16


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize(
    "layer",
    [
        'type: "BatchNorm" batch_norm_param { use_global_stats: false }',
        'type: "Scale" scale_param { bias_term: true }',
        'type: "Bias"',
        'type: "ReLU"',
        'type: "ReLU" relu_param { negative_slope: 0.1 }',
        'type: "ELU"',
        'type: "TanH"',
        'type: "Sigmoid"',
    ],
)
def test_channels_and_values(layer: str, channels: int, in_place: bool) -> None:
    agree(layer, images((3, channels, 4, 3)), in_place)


FUSED = """
layer {{ name: "in" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: 3 dim: 3 dim: 9 dim: 7 }} shape {{ dim: 3 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: {channels} kernel_h: 3 kernel_w: 2 pad_h: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param {{ negative_slope: 0.1 }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param {{ num_output: {channels} kernel_size: 3 pad: 1 bias_term: false weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "norm2" type: "BatchNorm" bottom: "conv2" top: "conv2" }}
layer {{ name: "scale2" type: "Scale" bottom: "conv2" top: "conv2" scale_param {{ bias_term: true }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }}
layer {{ name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
  convolution_param {{ num_output: {channels} kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "conv2" bottom: "conv3" top: "sum" }}
layer {{ name: "relu3" type: "ReLU" bottom: "sum" top: "sum" }}
layer {{ name: "pool" type: "Pooling" bottom: "sum" top: "pool" pooling_param {{ pool: MAX kernel_size: 3 stride: 2 }} }}
layer {{ name: "lrn" type: "LRN" bottom: "pool" top: "lrn" lrn_param {{ local_size: 3 alpha: 0.1 }} }}
layer {{ name: "concat" type: "Concat" bottom: "lrn" bottom: "pool" top: "concat" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "concat" top: "ip"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu4" type: "ReLU" bottom: "ip" top: "ip" }}
layer {{ name: "out" type: "InnerProduct" bottom: "ip" top: "out"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }}
"""


@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize("plans_memory", [False, True])
def test_a_net_whose_layers_are_computed_together(plans_memory: bool, channels: int) -> None:
    gradients, losses = [], []
    for backend, dtype in (("numpy", np.float64), ("onednn", np.float32)):
        context = LayerContext(create_backend(backend), TRAIN, dtype=dtype, seed=4, plans_memory=plans_memory)
        net = Net(parse_prototxt(FUSED.format(channels=channels), NetParameter), context)
        random = np.random.default_rng(6)
        for blobs in net.params.values():
            for blob in blobs[: 0 if blobs[0].shape == (channels,) and len(blobs) == 3 else None]:
                blob.data[...] = random.normal(0.1, 0.5, size=blob.shape).astype(np.float32)
        net.blobs["data"].data[...] = random.normal(size=net.blobs["data"].shape).astype(np.float32)
        net.blobs["label"].data[...] = [0, 1, 2]
        for _ in range(2):  # gradients are written by the first pass, and added to by the second
            losses.append(net.forward_from_to())
            net.backward_from_to()
        gradients.append({f"{name} {index}": blob.diff for name, blobs in net.params.items()
                          for index, blob in enumerate(blobs)})  # fmt: skip
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-5)
    for name, expected in gradients[0].items():
        _close(gradients[1][name], expected, name)
