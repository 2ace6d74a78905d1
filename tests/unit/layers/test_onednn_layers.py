"""Layers on oneDNN: Caffe's figures, and the numpy backend's in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends import create_backend
from paratrain.backends.onednn.library import load
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, create_layer
from paratrain.layers.onednn.arrays import ByValueLayer
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.layers.onednn.concat import OneDnnConcatLayer, OneDnnSliceLayer
from paratrain.layers.onednn.split import OneDnnSplitLayer
from paratrain.proto import TRAIN
from tests.gradient_check import LayerRun, layer_parameter, set_up_layer
from tests.optional import need_onednn
from tests.unit.layers.golden import golden_names, run_golden_case

# Cases that are the numpy backend's even here, by what oneDNN lacks (such as normalization of 3 channels), of the types that
# have kernels.
FALL_BACK = {
    "batch_norm_test", "batch_norm_train", "bias", "bias_two_bottoms", "lrn_within", "pool_ave_pad", "pool_max_mask",
    "scale", "scale_two_bottoms",
}  # fmt: skip
WITHOUT_KERNELS = (ByValueLayer, OneDnnConcatLayer, OneDnnSliceLayer, OneDnnSplitLayer)


@pytest.fixture(autouse=True)
def _onednn() -> None:
    need_onednn()


@pytest.mark.parametrize("name", golden_names(""))
def test_golden_case(name: str) -> None:
    run = run_golden_case(name, backend="onednn", rtol=1e-4)
    if isinstance(run.layer, OneDnnLayer) and not isinstance(run.layer, WITHOUT_KERNELS):
        is_left = name in FALL_BACK or (name == "lrn_across" and load().block_width < 16)  # no kernel without AVX-512
        assert (run.layer.latest_kernel is None) == is_left


def test_nets_of_doubles_are_computed_by_the_plain_layers() -> None:
    context = LayerContext(create_backend("onednn"), TRAIN, dtype=np.float64)
    layer = create_layer(layer_parameter('type: "ReLU" name: "r"'), context)
    assert not isinstance(layer, OneDnnLayer)


def values(shape: tuple[int, ...], seed: int) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(np.float64)


def run_once(run: LayerRun, seed: int, propagate: bool = True) -> list[npt.NDArray[Any]]:
    """Run forward and backward; return top, bottom diff and parameter diffs, which held numbers before."""
    for index, blob in enumerate(run.layer.blobs):
        blob.data[...] = values(blob.shape, seed + 10 + index) * 0.2
        blob.diff[...] = values(blob.shape, seed + 20 + index)
    outputs = run.forward()
    for index, top in enumerate(run.tops):
        top.diff[...] = values(top.shape, seed + 30 + index)
    run.layer.backward(run.tops, [propagate] * len(run.bottoms), run.bottoms)
    diffs = [blob.diff.copy() for blob in (*run.bottoms, *run.layer.blobs)]
    return [*outputs, *diffs]


def compare(text: str, shape: tuple[int, ...], tolerance: float = 1e-5, in_place: bool = False) -> OneDnnLayer[Any]:
    """Run the layer on both backends and compare all that comes out; return that of oneDNN."""
    bottom = values(shape, 1)
    runs = [
        set_up_layer(text, [bottom], dtype=dtype, backend=name, in_place=in_place)
        for name, dtype in (("numpy", np.float64), ("onednn", np.float32))
    ]
    for repetition in range(2):  # the second finds buffers and copies of the first
        expected, found = (run_once(run, 100 * repetition) for run in runs)
        for reference, result in zip(expected, found, strict=True):
            scale = max(float(np.abs(reference).max()), 1e-30)
            np.testing.assert_allclose(result / scale, reference / scale, rtol=0, atol=tolerance)
    layer = runs[1].layer
    assert isinstance(layer, OneDnnLayer)
    return layer


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ("num_output: 32 kernel_size: 3 pad: 1", (2, 16, 7, 9)),
        ("num_output: 20 kernel_size: 5", (3, 1, 12, 12)),
        ("num_output: 50 kernel_size: 5", (2, 20, 9, 9)),
        ("num_output: 32 kernel_size: 5 pad: 2", (2, 3, 9, 9)),
        ("num_output: 64 kernel_size: 3 group: 2 stride: 2 pad: 1", (2, 32, 9, 8)),
        ("num_output: 32 kernel_size: 3 group: 32 pad: 1 bias_term: false", (2, 32, 8, 8)),
        ("num_output: 24 kernel_size: 1", (2, 48, 6, 6)),
        ("num_output: 17 kernel_size: 3 dilation: 2 pad: 2", (2, 33, 8, 8)),
        ("num_output: 4 kernel_size: 1", (1, 2, 1, 1)),
    ],
)
def test_convolution(settings: str, shape: tuple[int, ...]) -> None:
    filler = 'weight_filler { type: "xavier" }'
    layer = compare(f'type: "Convolution" convolution_param {{ {settings} {filler} }}', shape)
    assert not any("ref" in name for name in layer.latest_kernel.implementations)


@pytest.mark.parametrize("settings", ["pool: MAX kernel_size: 3 stride: 2", "pool: AVE kernel_size: 3 stride: 2",
                                      "pool: MAX kernel_size: 3 stride: 2 pad: 1", "pool: AVE kernel_size: 3 pad: 1",
                                      "pool: MAX kernel_size: 2 stride: 3", "pool: AVE global_pooling: true"])  # fmt: skip
@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (2, 5, 8, 11)])
def test_pooling(settings: str, shape: tuple[int, ...]) -> None:
    layer = compare(f'type: "Pooling" pooling_param {{ {settings} }}', shape)
    assert layer.latest_kernel is not None


def test_averages_whose_windows_reach_over_the_padding_are_left_to_numpy() -> None:
    layer = compare('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }', (2, 16, 8, 8))
    assert layer.latest_kernel is None


@pytest.mark.parametrize("slope", [0, 0.25, -0.5])
@pytest.mark.parametrize("in_place", [False, True])
def test_relu(slope: float, in_place: bool) -> None:
    text = f'type: "ReLU" relu_param {{ negative_slope: {slope} }}'
    assert (compare(text, (2, 17, 3), in_place=in_place).latest_kernel is None) == (slope < 0)


@pytest.mark.parametrize("size", [5, 3])
def test_lrn(size: int) -> None:
    compare(f'type: "LRN" lrn_param {{ local_size: {size} alpha: 0.5 beta: 0.75 k: 2 }}', (2, 32, 5, 5))


@pytest.mark.parametrize("settings", ["", "transpose: true", "bias_term: false", "axis: 2"])
def test_inner_product(settings: str) -> None:
    text = (
        f'type: "InnerProduct" inner_product_param {{ num_output: 10 {settings} weight_filler {{ type: "xavier" }} }}'
    )
    assert compare(text, (4, 3, 5, 2)).latest_kernel is not None


def test_a_bias_that_learns_alone_and_a_bias_that_does_not() -> None:
    text = 'type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } }'
    for learns in ([False, True], [True, False]):
        runs = [
            set_up_layer(text, [values((2, 4, 6, 6), 1)], dtype=dtype, backend=name)
            for name, dtype in (("numpy", np.float64), ("onednn", np.float32))
        ]
        for run in runs:
            run.layer.param_propagate_down = learns
        expected, found = (run_once(run, 0) for run in runs)
        for reference, result in zip(expected, found, strict=True):
            np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-4)


def test_a_batch_of_another_size() -> None:
    text = 'type: "Convolution" convolution_param { num_output: 20 kernel_size: 3 weight_filler { type: "xavier" } }'
    run = set_up_layer(text, [values((4, 3, 8, 8), 1)], dtype=np.float32, backend="onednn")
    whole = run_once(run, 0)[0]
    kernel = run.layer.latest_kernel  # type: ignore[attr-defined]
    for batch in (2, 4, 1):
        run.bottoms[0].reshape(batch, 3, 8, 8)
        run.bottoms[0].data[...] = values((4, 3, 8, 8), 1)[:batch]
        run.layer.reshape(run.bottoms, run.tops)
        np.testing.assert_allclose(run_once(run, 0)[0], whole[:batch], rtol=1e-5, atol=1e-6)
        assert (run.layer.latest_kernel is kernel) == (batch == 4), "kernels are kept for each shape"  # type: ignore[attr-defined]


def test_an_empty_batch() -> None:
    text = 'type: "Convolution" convolution_param { num_output: 20 kernel_size: 3 weight_filler { type: "xavier" } }'
    run = set_up_layer(text, [np.zeros((0, 3, 8, 8))], dtype=np.float32, backend="onednn")
    assert run_once(run, 0)[0].shape == (0, 20, 6, 6)


def test_blobs_stay_in_the_layout_of_the_last_primitive() -> None:
    """A chain of layers: nothing is put in plain order before somebody asks, and then all at once."""
    context = LayerContext(create_backend("onednn"), TRAIN)
    blobs = [Blob((2, 3, 16, 16)), *(Blob() for _ in range(2))]
    blobs[0].data[...] = values(blobs[0].shape, 3)
    filler = 'weight_filler { type: "xavier" }'
    texts = [
        f'type: "Convolution" name: "c" convolution_param {{ num_output: 32 kernel_size: 3 {filler} }}',
        'type: "ReLU" name: "r"',
        'type: "Pooling" name: "p" pooling_param { kernel_size: 2 stride: 2 }',
    ]
    layers = [create_layer(layer_parameter(text), context) for text in texts]
    wiring = [(blobs[0], blobs[1]), (blobs[1], blobs[1]), (blobs[1], blobs[2])]
    for layer, (bottom, top) in zip(layers, wiring, strict=True):
        layer.set_up([bottom], [top])
    for layer, (bottom, top) in zip(layers, wiring, strict=True):
        layer.forward([bottom], [top])
    assert all(blob.data_memory.head.value == "arranged" for blob in blobs[1:])  # type: ignore[attr-defined]
    windows = blobs[1].data.reshape(2, 32, 7, 2, 7, 2)
    assert (windows >= 0).all()
    np.testing.assert_array_equal(blobs[2].data, windows.max(axis=(3, 5)))
