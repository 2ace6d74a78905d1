"""InnerProduct on the simulated GPU: Caffe's figures, the numpy backend's in doubles, and what narrow types may round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.forms import Form
from paratrain.backends.cupy.graph import capture
from paratrain.blob import Blob, MemorySlice, SyncedMemory
from paratrain.layers.cupy.inner_product import CupyInnerProductLayer
from tests.unit.layers.cupy.products import ROUNDING, compare, layer_on_gpu, run_once, values
from tests.unit.layers.golden import golden_names, run_golden_case

SETTINGS = [
    "num_output: 5",
    "num_output: 5 transpose: true",
    "num_output: 4 axis: 2",
    "num_output: 3 axis: 0 bias_term: false",
]


def layer(settings: str) -> str:
    return f'name: "ip" type: "InnerProduct" inner_product_param {{ {settings} }}'


@pytest.mark.parametrize("name", golden_names("inner_product"))
def test_agrees_with_caffe(name: str) -> None:
    assert isinstance(run_golden_case(name, backend="cupy").layer, CupyInnerProductLayer)


@pytest.mark.parametrize("precision", list(ROUNDING))
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_doubles(settings: str, precision: str) -> None:
    compare(layer(settings), (3, 2, 4, 3), precision)


def test_an_empty_batch_adds_nothing() -> None:
    run = layer_on_gpu(layer("num_output: 2"), [np.zeros((0, 3))])
    found = run_once(run, 0)
    assert found[0].shape == (0, 2)
    np.testing.assert_array_equal(found[2], values((2, 3), 20))
    np.testing.assert_array_equal(found[3], values((2,), 21))


def test_values_stay_narrow_between_layers_and_gradients_of_parameters_do_not(simulated_gpu: Any) -> None:
    run = layer_on_gpu(layer("num_output: 8"), [values((4, 6), 1)], "bfloat16")
    run_once(run, 0)
    run.layer.forward(run.bottoms, run.tops)
    arrangement = run.tops[0].data_memory.arrangement
    assert arrangement.form == Form.of((4, 8), "bfloat16")
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert run.bottoms[0].diff_memory.arrangement.form == Form.of((4, 6), "bfloat16")
    # Sums of products that bfloat16 could not hold: 1 + 2^-12 of each sample.
    run.bottoms[0].data[...] = [[1.0] * 6, [2.0**-12] * 6, [0.0] * 6, [0.0] * 6]
    for blob in run.layer.blobs:
        blob.diff[...] = 0
    run.layer.forward(run.bottoms, run.tops)
    run.layer.backward(run.tops, [True], run.bottoms)
    assert (run.layer.blobs[0].diff == np.float32(1 + 2.0**-12)).all()


def test_blobs_that_are_parts_of_others_get_float32(simulated_gpu: Any) -> None:
    text, bottom = layer("num_output: 8"), values((4, 6), 1)
    expected = run_once(layer_on_gpu(text, [bottom], "bfloat16"), 0)
    run = layer_on_gpu(text, [bottom], "bfloat16")
    wholes = [SyncedMemory(100) for _ in range(3)]
    run.tops[0].use_memory(data=MemorySlice(wholes[0], 4, 36), diff=MemorySlice(wholes[1], 8, 40))
    run.bottoms[0].use_memory(diff=MemorySlice(wholes[2], 5, 29))
    for found, reference in zip(run_once(run, 0), expected, strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-2, atol=1e-2)
    assert run.layer.is_capturable


def test_changed_weights_are_seen(simulated_gpu: Any) -> None:
    run = layer_on_gpu(layer("num_output: 2"), [np.ones((1, 3))], "float16")
    for number in (1.0, 2.0):
        run.layer.blobs[0].data[...] = number
        assert run.forward()[0].tolist() == [[3 * number, 3 * number]]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_recorded_passes_allocate_nothing_and_give_the_same_bits(simulated_gpu: Any, precision: str) -> None:
    import simulated

    run = layer_on_gpu(layer("num_output: 5"), [values((7, 2, 3, 3), 1)], precision)
    gpu = run.layer.context.backend
    expected = run_once(run, 0)
    assert [array.tobytes() for array in run_once(run, 0)] == [array.tobytes() for array in expected]

    def upload() -> None:
        for blob in (*run.bottoms, *run.layer.blobs):
            blob.data_memory.device(gpu.device)
        for blob in (*run.tops, *run.layer.blobs):
            blob.diff_memory.device(gpu.device)

    def both() -> None:
        run.layer.forward(run.bottoms, run.tops)
        run.layer.backward(run.tops, [True], run.bottoms)

    for index, blob in enumerate(run.layer.blobs):
        blob.diff[...] = values(blob.shape, 20 + index)
        blob.data_memory.mutable_device(gpu.device)  # a recording has to convert the weights
    run.tops[0].diff[...] = values(run.tops[0].shape, 30)
    upload()
    before = dict(simulated.counts)
    graph = capture(gpu.stream, both)
    assert graph is not None
    assert [simulated.counts[what] - before.get(what, 0) for what in ("malloc", "allocate")] == [0, 0]
    graph.replay()
    found = [run.tops[0].data, run.bottoms[0].diff, *(blob.diff for blob in run.layer.blobs)]
    assert [array.tobytes() for array in found] == [array.tobytes() for array in expected]


def test_bottoms_in_another_order(simulated_gpu: Any) -> None:
    run = layer_on_gpu(layer("num_output: 5"), [values((2, 3, 4, 5), 1)], "bfloat16")
    expected = run.forward()[0]
    memory, form = run.bottoms[0].data_memory, Form.of((2, 3, 4, 5), "bfloat16", channels_last=True)
    plain = simulated_gpu.asarray(values((2, 3, 4, 5), 1).astype(np.float32)).reshape(-1)
    forms = run.layer.context.backend.forms
    forms.convert(plain, Form.of(form.shape, "float32"), forms.write(memory, form), form)
    np.testing.assert_array_equal(run.forward()[0], expected)
    assert isinstance(run.bottoms[0], Blob) and memory.arrangement.form == form
