"""Layers on oneDNN against the numpy backend, with blobs in blocks of channels, with the channels last, and mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.onednn.library import load
from paratrain.proto import TEST
from tests.gradient_check import distinct_values
from tests.optional import need_onednn
from tests.unit.layers.onednn.arranged import LAYOUTS, PADDED, SHAPE, images, run_both, stays_arranged


@pytest.fixture(autouse=True)
def _onednn() -> None:
    need_onednn()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [SHAPE, PADDED])
@pytest.mark.parametrize(
    "settings",
    [
        "",
        "coeff: 1 coeff: -2 coeff: 0.5",
        "operation: PROD",
        "operation: MAX",
        "operation: PROD stable_prod_grad: false",
    ],
)
def test_eltwise(settings: str, shape: tuple[int, ...], layout: str) -> None:
    bottoms = [value.astype(np.float32) for value in distinct_values((3, *shape), np.random.default_rng(2))]
    layer = f'type: "Eltwise" eltwise_param {{ {settings} }}'
    run = run_both(layer, bottoms, layout)
    assert layout == "plain" or stays_arranged(run) or (shape == PADDED and "stable" in settings)
    run_both(layer, bottoms, layout, propagate=[False, True, True], passes=1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("top_count", [1, 2, 4])
def test_split(top_count: int, layout: str) -> None:
    run_both('type: "Split"', images(PADDED), layout, top_count=top_count)
    run = run_both('type: "Split"', images(SHAPE), layout, top_count=top_count)
    assert layout == "plain" or stays_arranged(run)
    assert all(top.data_memory is run.bottoms[0].data_memory for top in run.tops)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [(16, 32, 16), (5, 20, 16), (7,)])
@pytest.mark.parametrize("spatial", [(3, 4), (1, 1), (6,), (2, 3, 2)])
def test_concat_and_slice(channels: tuple[int, ...], spatial: tuple[int, ...], layout: str) -> None:
    parts = images(*[(2, count, *spatial) for count in channels])
    run = run_both('type: "Concat"', parts, layout)
    assert layout == "plain" or spatial == (1, 1) or stays_arranged(run)
    run_both('type: "Concat"', parts, layout, propagate=[False, *[True] * (len(parts) - 1)], passes=1)
    points = " ".join(f"slice_point: {sum(channels[:index])}" for index in range(1, len(channels)))
    run = run_both(f'type: "Slice" slice_param {{ {points} }}', images((2, sum(channels), *spatial)), layout,
             top_count=len(channels))  # fmt: skip
    assert layout == "plain" or spatial == (1, 1) or stays_arranged(run)
    if len(set(channels)) == 1:
        run_both('type: "Concat" concat_param { axis: 2 }', parts, layout)


@pytest.mark.parametrize("layout", ["blocked", "last", "plain"])
@pytest.mark.parametrize("shape", [SHAPE, PADDED, (4, 6), (2, 16, 7), (2, 16, 2, 3, 2)])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        'type: "BatchNorm"',
        'type: "BatchNorm" batch_norm_param { use_global_stats: true eps: 0.01 }',
        'type: "Scale"',
        'type: "Scale" scale_param { bias_term: true }',
        'type: "Bias"',
    ],
)
def test_channel_by_channel(layer: str, in_place: bool, shape: tuple[int, ...], layout: str) -> None:
    if len(shape) == 2 and layout == "blocked":
        pytest.skip("no blocks without pixels")
    run = run_both(layer, images(shape), layout, in_place=in_place)
    if len(shape) == 4 and (layout != "blocked" or load().block_width == 16):
        assert stays_arranged(run)
        assert run.layer._kernel is not None, "computed by numpy"  # type: ignore[attr-defined]


@pytest.mark.parametrize("layer", ['type: "Scale" scale_param { bias_term: true }', 'type: "Bias"'])
def test_factors_of_a_layer_whose_bottom_needs_no_gradient(layer: str) -> None:
    run_both(layer, images(SHAPE), "blocked", propagate=[False])


@pytest.mark.parametrize("axis", [0, 2])
def test_factors_along_other_axes(axis: int) -> None:
    run_both(f'type: "Scale" scale_param {{ axis: {axis} bias_term: true }}', images(SHAPE), "blocked")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        'type: "AbsVal"',
        'type: "ELU"',
        'type: "ELU" elu_param { alpha: -0.5 }',
        'type: "TanH"',
        'type: "Sigmoid"',
        'type: "Power" power_param { power: 2 scale: 0.5 shift: 0.1 }',
        'type: "Dropout"',
    ],
)
def test_value_by_value(layer: str, in_place: bool, layout: str) -> None:
    if in_place and "AbsVal" in layer:
        pytest.skip("its gradient needs the bottom")
    for shape in (SHAPE, PADDED):
        run_both(layer, images(shape), layout, in_place=in_place)
        run_both(layer, images(shape), layout, in_place=in_place, phase=TEST, passes=1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("channels", "settings"),
    [
        (32, "num_output: 16 kernel_size: 4 stride: 2 pad: 1"),
        (3, "num_output: 5 kernel_size: 3 stride: 2 bias_term: false"),
        (8, "num_output: 8 group: 8 kernel_size: 4 stride: 2 pad: 1"),
        (32, "num_output: 32 group: 2 kernel_h: 1 kernel_w: 3 dilation: 2"),
        (16, "num_output: 3 kernel_size: 4 stride: 2 pad: 1"),  # a bias for so few channels is added by itself
        (4, "num_output: 21 kernel_size: 4 stride: 2 pad: 1"),
        (3, "num_output: 1 kernel_size: 3 pad: 1"),
    ],
)
def test_deconvolution(channels: int, settings: str, layout: str) -> None:
    layer = f'type: "Deconvolution" convolution_param {{ {settings} }}'
    bottoms = images((2, channels, 4, 5), (2, channels, 4, 5))
    run = run_both(layer, bottoms, layout)
    assert run.layer.latest_kernel is not None  # type: ignore[attr-defined]
    run_both(layer, bottoms[:1], layout, propagate=[False], passes=1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sums_by_chunks_and_by_primitives_agree(count: int) -> None:
    from paratrain.backends.onednn.sum import OneDnnSum
    from paratrain.layers.onednn.split import add_up

    backend: Any = create_backend("onednn")
    random = np.random.default_rng(4)
    arrays = [random.normal(size=150_001).astype(np.float32) for _ in range(count)]
    expected = np.sum(np.stack(arrays), axis=0, dtype=np.float32)
    by_chunks, by_primitives = np.empty_like(expected), np.empty_like(expected)
    add_up(arrays, by_chunks)
    np.testing.assert_allclose(by_chunks, expected, rtol=1e-5, atol=1e-6)
    if count > 1:
        OneDnnSum(backend.arranger, arrays[0].size).run(arrays, by_primitives)
        assert np.array_equal(by_primitives, by_chunks)
        OneDnnSum(backend.arranger, arrays[0].size).run(arrays, by_primitives, 0.0)
        assert np.array_equal(by_primitives, np.maximum(by_chunks, 0))
