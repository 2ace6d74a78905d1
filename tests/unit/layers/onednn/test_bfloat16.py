"""Layers on oneDNN in bfloat16: Caffe's figures to 1e-2, and blobs that stay in two bytes a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends import PRECISION_VARIABLE, create_backend
from paratrain.backends.onednn.names import DataType
from paratrain.layers.base import LayerContext
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.proto import TEST, TRAIN
from tests.gradient_check import LayerRun, set_up_layer
from tests.optional import need_bfloat16
from tests.unit.layers.golden import golden_names, run_golden_case
from tests.unit.layers.onednn.arranged import PADDED, SHAPE, arrange, images, run_both

TYPE_BY_TYPE = {
    "relu": 'type: "ReLU"',
    "max pooling": 'type: "Pooling" pooling_param { kernel_size: 2 }',
    "average pooling": 'type: "Pooling" pooling_param { pool: AVE kernel_size: 2 }',
    "lrn": 'type: "LRN" lrn_param { local_size: 5 alpha: 0.1 }',
    "scale": 'type: "Scale" scale_param { bias_term: true }',
    "batch norm": 'type: "BatchNorm"',
    "split": 'type: "Split"',
    "tanh": 'type: "TanH"',
    "power": 'type: "Power" power_param { power: 2 scale: 0.5 shift: 0.1 }',
    "convolution": 'type: "Convolution" convolution_param { num_output: 32 kernel_size: 3 pad: 1 }',
    "deconvolution": 'type: "Deconvolution" convolution_param { num_output: 21 kernel_size: 2 stride: 2 }',
}


@pytest.fixture(autouse=True)
def _bfloat16() -> None:
    need_bfloat16()


def is_bfloat16(run: LayerRun) -> bool:
    """Whether all that the layer has written lies in bfloat16."""
    written = [blob.data_memory for blob in run.tops] + [blob.diff_memory for blob in run.bottoms]
    arrangements = [memory.arrangement for memory in written]
    return all(found is not None and found.layout.dtype == DataType.BF16 for found in arrangements)


@pytest.mark.parametrize("name", golden_names(""))
def test_golden_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRECISION_VARIABLE, "bfloat16")
    run = run_golden_case(name, backend="onednn", rtol=0, atol=1e-5, of_largest=1e-2)
    if run.layer.type in ("Convolution", "Deconvolution"):
        assert isinstance(run.layer, OneDnnLayer)
        assert any("bf16" in kernel for kernel in run.layer.latest_kernel.implementations)


@pytest.mark.parametrize("layout", ["blocked", "last"])
@pytest.mark.parametrize("name", TYPE_BY_TYPE)
def test_each_type_keeps_bfloat16(name: str, layout: str) -> None:
    run = run_both(
        TYPE_BY_TYPE[name], images(SHAPE), layout, precision="bfloat16", top_count=3 if name == "split" else None
    )
    assert is_bfloat16(run)


@pytest.mark.parametrize("layer", ["batch norm", "scale", "max pooling", "lrn", "relu"])
def test_shapes_without_kernels_for_bfloat16(layer: str) -> None:
    """Some of these channels, which come last and fill no vector, are float32's, or the numpy backend's."""
    run_both(TYPE_BY_TYPE[layer], images(PADDED), "last", precision="bfloat16")


@pytest.mark.parametrize("layout", ["blocked", "last", "mixed"])
@pytest.mark.parametrize(
    "layer",
    [
        'type: "Eltwise"',
        'type: "Eltwise" eltwise_param { coeff: 1 coeff: -2 coeff: 0.5 }',
        'type: "Eltwise" eltwise_param { operation: PROD }',
        'type: "Concat"',
    ],
)
def test_several_bottoms(layer: str, layout: str) -> None:
    run = run_both(layer, images(SHAPE, SHAPE, SHAPE), layout, precision="bfloat16")
    assert is_bfloat16(run)


@pytest.mark.parametrize("layout", ["blocked", "last"])
@pytest.mark.parametrize("layer", ['type: "Sigmoid"', 'type: "ELU"', 'type: "Dropout"'])
def test_in_place(layer: str, layout: str) -> None:
    run = run_both(layer, images(SHAPE), layout, in_place=True, phase=TEST, passes=1, precision="bfloat16")
    assert is_bfloat16(run)


def test_slices_keep_bfloat16() -> None:
    run = run_both(
        'type: "Slice" slice_param { slice_point: 16 }', images(SHAPE), "blocked", top_count=2, precision="bfloat16"
    )
    assert is_bfloat16(run)


@pytest.mark.parametrize("samples", [32, 33])
@pytest.mark.parametrize("transpose", ["false", "true"])
def test_inner_products_of_many_samples_are_bfloat16(samples: int, transpose: str) -> None:
    layer = f'type: "InnerProduct" inner_product_param {{ num_output: 40 transpose: {transpose} }}'
    run = run_both(layer, images((samples, 16, 3, 2)), "last", precision="bfloat16")
    found: Any = run.layer
    assert any("bf16" in kernel for kernel in found.latest_kernel.implementations) == (samples > 32)
    assert run.tops[0].data_memory.arrangement is None


def test_sums_are_rounded_once() -> None:
    """256 + 1 is 256 again in bfloat16: added one by one the eight ones would be lost."""
    bottoms = [np.full(SHAPE, 256, np.float32), *[np.ones(SHAPE, np.float32)] * 8]
    run = set_up_layer('type: "Eltwise"', bottoms, dtype=np.float32, backend="onednn")
    exact = run.forward()[0]
    run = run_both('type: "Eltwise"', bottoms, "blocked", precision="bfloat16", passes=1)
    np.testing.assert_array_equal(run.tops[0].data, exact)


@pytest.mark.parametrize(("layout", "channels"), [("blocked", 20), ("last", 32)])
@pytest.mark.parametrize("pool", ["MAX kernel_size: 3 pad: 1", "AVE kernel_size: 3 stride: 2", "AVE kernel_size: 13"])
def test_gradients_of_windows_that_overlap_are_rounded_once(pool: str, layout: str, channels: int) -> None:
    """Added one by one in bfloat16, 169 times 1 / 169 makes 1.16."""
    gradients = []
    for backend in (create_backend("numpy"), create_backend("onednn", "bfloat16")):
        context = LayerContext(backend=backend, phase=TRAIN, dtype=np.float32)
        bottoms = _in_bfloat16(images((3, channels, 27, 26)))
        run = set_up_layer(f'type: "Pooling" pooling_param {{ pool: {pool} }}', bottoms, context=context)
        (bottom,), (top,) = run.bottoms, run.tops
        if backend.name == "onednn":
            arrange(bottom.data_memory, bottom.shape, layout, backend)
        run.layer.forward([bottom], [top])
        top.diff[...] = _in_bfloat16(images(top.shape, seed=2))[0]
        if backend.name == "onednn":
            arrange(top.diff_memory, top.shape, layout, backend)
        run.layer.backward([top], [True], [bottom])
        gradients.append(bottom.read_diff(None).copy())
    assert is_bfloat16(run)
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=2**-8, atol=1e-5)


def _in_bfloat16(arrays: list[Any]) -> list[Any]:
    """Numbers that bfloat16 holds as they are."""
    return [(array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) for array in arrays]


def test_one_channel_computes_gradients_of_weights_in_float32() -> None:
    layer = 'type: "Convolution" convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } }'
    run = run_both(layer, images((4, 1, 12, 12)), "plain", precision="bfloat16")
    found: Any = run.layer
    assert not any("gemm" in kernel for kernel in found.latest_kernel.implementations)


def test_a_backend_of_float32_beside_it_is_untouched() -> None:
    create_backend("onednn", "bfloat16")
    run = run_both(TYPE_BY_TYPE["convolution"], images(SHAPE), "blocked")
    assert not is_bfloat16(run)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ("num_output: 16 group: 2 kernel_size: 3 stride: 2 pad: 2", (1, 6, 1)),
        ("num_output: 24 kernel_h: 2 kernel_w: 5 stride: 3 pad_h: 0 pad_w: 3", (2, 16, 9, 1)),
        (
            "num_output: 6 group: 2 kernel_size: 4 kernel_size: 4 kernel_size: 1 stride: 2 stride: 3 stride: 1",
            (2, 6, 12, 4, 4),
        ),
    ],
)
def test_gradients_of_weights_that_onednn_does_not_get_right(settings: str, shape: tuple[int, ...]) -> None:
    """It reads past the ends of images that are smaller than the step between windows: of memory that holds large numbers."""
    layer = f'type: "Convolution" convolution_param {{ {settings} }}'
    run = run_both(layer, images(shape), "plain", precision="bfloat16", passes=1)
    backend: Any = run.layer.backend
    assert isinstance(run.layer, OneDnnLayer)
    found = run.layer.latest_kernel
    assert found._in_float32 is not None
    backend.engine.scratchpad.array[...] = backend.arranger.workspace.array[...] = 0x7F
    before = [blob.diff.copy() for blob in run.layer.blobs]
    run.layer.backward(run.tops, [True], run.bottoms)
    assert all(
        np.isfinite(blob.diff).all() and (blob.diff != old).any()
        for blob, old in zip(run.layer.blobs, before, strict=True)
    )


@pytest.mark.parametrize("channels", [17, 20])
def test_lrn_that_onednn_does_not_get_right_is_computed_in_float32(channels: int) -> None:
    run = run_both(TYPE_BY_TYPE["lrn"], images((2, channels, 4, 3)), "last", precision="bfloat16")
    arrangement = run.tops[0].data_memory.arrangement
    assert arrangement is None or arrangement.layout.dtype == DataType.F32
