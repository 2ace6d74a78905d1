"""Concat, Slice, Split, Eltwise and views on the simulated GPU, their blobs in all forms and mixtures of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.blob import SyncedMemory
from paratrain.layers import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from tests.gradient_check import LayerRun, set_up_layer
from tests.unit.layers.cupy.agreement import MIXTURES, agree
from tests.unit.layers.cupy.passes import FORMS, form_of, lay
from tests.unit.layers.golden import golden_names, run_golden_case

SHAPE = (2, 8, 3, 5)


@pytest.mark.parametrize("name", golden_names("concat", "slice", "split", "eltwise", "flatten", "reshape"))
def test_agrees_with_caffe(name: str) -> None:
    run_golden_case(name, backend="cupy")


def images(*shapes: tuple[int, ...]) -> list[Any]:
    random = np.random.default_rng(1)
    return [random.integers(-8, 9, shape) / 8 + 0.0625 for shape in shapes]


def form_names(run: LayerRun, *, of: str) -> set[str]:
    """In what the tops' values, or the gradients of the bottoms, lie."""
    memories = [top.data_memory for top in run.tops] if of == "tops" else [blob.diff_memory for blob in run.bottoms]
    forms = [memory.arrangement.form if memory.arrangement else None for memory in memories]
    return {"plain" if form is None else f"{form.dtype.name}{' last' * form.channels_last}" for form in forms}


@pytest.mark.parametrize("names", MIXTURES[1:])
@pytest.mark.parametrize("counts", [(8, 16, 24), (3, 8, 1), (2, 4, 2, 6, 1, 8, 3, 5, 16, 7)])
@pytest.mark.parametrize("spatial", [(3, 4), (1, 1), (2, 3, 2), ()])
def test_concat_and_slice_of_channels(spatial: tuple[int, ...], counts: Sequence[int], names: Sequence[str]) -> None:
    parts = images(*[(2, count, *spatial) for count in counts])
    agree('type: "Concat"', parts, names, propagate=[index % 3 != 1 for index in range(len(parts))])
    points = " ".join(f"slice_point: {sum(counts[:index])}" for index in range(1, len(counts)))
    layer = f'type: "Slice" slice_param {{ {points} }}'
    agree(layer, images((2, sum(counts), *spatial)), names[:1], top_names=names, top_count=len(counts))


@pytest.mark.parametrize("names", MIXTURES[1:5])
@pytest.mark.parametrize("axis", [0, 2, -1])
def test_concat_and_slice_of_other_axes(axis: int, names: Sequence[str]) -> None:
    shapes = [[*SHAPE] for _ in range(3)]
    for shape, length in zip(shapes, (1, 4, 3), strict=True):
        shape[axis] = length
    whole = [*SHAPE]
    whole[axis] = 8
    agree(f'type: "Concat" concat_param {{ axis: {axis} }}', images(*map(tuple, shapes)), names)
    layer = f'type: "Slice" slice_param {{ axis: {axis} slice_point: 1 slice_point: 5 }}'
    agree(layer, images(tuple(whole)), names[:1], top_names=names, top_count=3)


def test_concat_leaves_values_in_the_form_of_most() -> None:
    parts = images((2, 16, 3, 3), (2, 16, 3, 3), (2, 4, 3, 3))
    run = agree('type: "Concat"', parts, ["bfloat16 last", "bfloat16 last", "float32"])
    assert form_names(run, of="tops") == {"bfloat16 last"}


@pytest.mark.parametrize("names", MIXTURES)
@pytest.mark.parametrize("top_count", [1, 2, 11])
def test_split(top_count: int, names: Sequence[str]) -> None:
    for shape in (SHAPE, (3, 7)):
        run = agree('type: "Split"', images(shape), names[:1], top_names=names, top_count=top_count, factor=top_count)
        assert all(top.data_memory is run.bottoms[0].data_memory for top in run.tops)


def test_split_without_any_gradient() -> None:
    run = set_up_layer('type: "Split"', images(SHAPE), dtype=np.float32, backend="cupy", top_count=2)
    run.bottoms[0].diff[...] = 5
    run.layer.forward(run.bottoms, run.tops)
    run.layer.backward(run.tops, [True], run.bottoms)
    assert not run.bottoms[0].diff.any()


@pytest.mark.parametrize("names", MIXTURES)
@pytest.mark.parametrize(
    "settings",
    [
        "",
        "coeff: 1 coeff: -2 coeff: 0.5",
        "operation: PROD",
        "operation: PROD stable_prod_grad: false",
        "operation: MAX",
    ],
)
def test_eltwise(settings: str, names: Sequence[str]) -> None:
    layer = f'type: "Eltwise" eltwise_param {{ {settings} }}'
    agree(layer, images(SHAPE, SHAPE, SHAPE), names, factor=4)
    agree(layer, images((3, 7), (3, 7), (3, 7)), names, propagate=[True, False, True], factor=4)


@pytest.mark.parametrize("operation", ["SUM", "PROD", "MAX"])
def test_eltwise_of_very_many(operation: str) -> None:
    layer = f'type: "Eltwise" eltwise_param {{ operation: {operation} }}'
    for count in (8, 19):
        bottoms = images(*[SHAPE] * count)
        agree(layer, bottoms, MIXTURES[4], is_capturable=operation == "SUM" or count == 8, factor=count)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "layer", ['type: "Flatten"', 'type: "Reshape" reshape_param { shape { dim: 0 dim: 4 dim: -1 } }']
)
def test_views_of_any_form_show_the_values_in_plain_order(layer: str, name: str) -> None:
    agree(layer, images(SHAPE), [name], top_names=["float32"])
    values = images(SHAPE)
    run = set_up_layer(layer, values, dtype=np.float32, backend="cupy")
    backend: Any = run.layer.backend
    lay(backend, run.bottoms[0].data_memory, values[0], form_of(name, SHAPE))
    run.layer.forward(run.bottoms, run.tops)
    assert np.array_equal(run.tops[0].data.reshape(SHAPE), values[0].astype(np.float32))


NET = """
force_backward: true
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 8 dim: 5 dim: 4 } } }
layer { name: "scale" type: "Power" bottom: "data" top: "x" power_param { scale: 0.5 } }
layer { name: "pool" type: "Pooling" bottom: "x" top: "y" pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "y" top: "z" }
layer { name: "relu" type: "ReLU" bottom: "z" top: "z" relu_param { negative_slope: 0.25 } }
layer { name: "norm" type: "LRN" bottom: "z" top: "n" }
layer { name: "join" type: "Concat" bottom: "n" bottom: "z" top: "c" }
layer { name: "loss" type: "Reduction" bottom: "c" top: "loss" loss_weight: 1 reduction_param { operation: SUMSQ } }
"""


@pytest.mark.parametrize("form", ["float32", "float32 last", "bfloat16 last"])
@pytest.mark.parametrize("fuses", [True, False])
def test_a_sum_ends_in_its_relu_and_shares_its_gradient(form: str, fuses: bool) -> None:
    results = []
    for backend, dtype in ((create_backend("numpy"), np.float64), (CupyBackend(), np.float32)):
        net = Net(parse_prototxt(NET, NetParameter), LayerContext(backend, TRAIN, dtype=dtype))
        data = net.blobs["data"]
        values = np.random.default_rng(3).integers(-40, 40, data.shape) / 8
        for _ in range(2):
            data.data[...] = values
            if isinstance(backend, CupyBackend):
                lay(backend, data.data_memory, values, form_of(form, data.shape))
            if fuses:
                loss = net.forward_from_to()
                net.backward_from_to()
            else:  # the pair is parted: the ReLU runs alone
                parts = [(0, 3), (4, len(net.layers) - 1)]
                loss = sum(net.forward_from_to(*part) for part in parts)
                net.backward_from_to(len(net.layers) - 1, 4)
                net.backward_from_to(3, 1)
        results.append((loss, net.blobs["x"].read_diff(None).copy()))
        if isinstance(backend, CupyBackend):
            total: Any = net.layers[net.layer_names.index("sum")]
            assert total.relu is not None
            assert total.relu.leaves_backward == fuses
            shared = net.bottoms[net.layer_names.index("sum")]
            above = net.blobs["z"]
            assert sum(blob.diff_memory is above.diff_memory for blob in shared) == 1
            assert isinstance(above.diff_memory, SyncedMemory)
    limit = 2e-2 if "bfloat16" in form else 1e-5
    assert results[1][0] == pytest.approx(results[0][0], rel=limit)
    largest = np.abs(results[0][1]).max()
    np.testing.assert_allclose(results[1][1] / largest, results[0][1] / largest, atol=limit)
