"""Softmax and SoftmaxWithLoss on the simulated GPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.errors import LayerError
from paratrain.layers.base import LayerContext
from paratrain.proto import TRAIN
from tests.gradient_check import LayerRun, set_up_layer
from tests.unit.layers.cupy.passes import FORMS, check_recording, form_of, lay, run_passes
from tests.unit.layers.golden import golden_names, run_golden_case

Array = npt.NDArray[Any]

# Scores and the axis of the classes: by rows and by positions, few and many of both.
SHAPES = [
    ((6, 10), 1),
    ((3, 700), 1),
    ((2, 5, 3, 4), 1),
    ((2, 3, 4, 5), -1),
    ((4, 3, 2), 0),
    ((7,), 0),
    ((2, 3, 50, 50), 1),
]
SHAPES += [((5000, 3), 1), ((2, 40, 5, 3), 2), ((2, 1, 3), 1), ((1, 3000), 1)]


@pytest.fixture(scope="module")
def backend(simulated_gpu: Any) -> CupyBackend:
    return CupyBackend()


def scores(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(2).normal(size=shape) * 3


def labels_for(shape: tuple[int, ...], axis: int, ignored: int | None = None) -> Array:
    rng, axis = np.random.default_rng(3), axis % len(shape)
    rest = shape[:axis] + shape[axis + 1 :]
    labels = rng.integers(0, shape[axis], size=rest).astype(np.float32)
    if ignored is not None:
        labels[rng.random(rest) < 0.3] = ignored
    return labels


def loss_layer(extra: str = "") -> str:
    return f'name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" {extra}'


@pytest.mark.parametrize("name", golden_names("softmax"))
def test_agrees_with_caffe(name: str) -> None:
    run = run_golden_case(name, backend="cupy")
    assert run.layer.is_capturable
    run.layer.backend.check_faults()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_softmax(backend: CupyBackend, shape: tuple[int, ...], axis: int, in_place: bool) -> None:
    layer = f'type: "Softmax" softmax_param {{ axis: {axis} }}'
    for form in FORMS:
        passes = run_passes(layer, [scores(shape)], form, backend=backend, in_place=in_place, top_form="float32")
        passes.check(bottoms=(), rtol=2)  # whatever comes in, probabilities are float32
        passes.check(name=form, rtol=2)


@pytest.mark.parametrize(("shape", "axis"), [case for case in SHAPES if len(case[0]) > 1])
@pytest.mark.parametrize("extra", ["", "ignore_label: 1", "normalization: NONE ignore_label: 1", "normalize: false"])
def test_loss(backend: CupyBackend, shape: tuple[int, ...], axis: int, extra: str) -> None:
    if axis == 0:
        shape = (shape[1], shape[0], *shape[2:])  # a loss needs the batch in front
        axis = 1
    layer = loss_layer(f"softmax_param {{ axis: {axis} }} loss_param {{ {extra} }}")
    given = [scores(shape), labels_for(shape, axis, 1 if "ignore_label" in extra else None)]
    for form in FORMS:
        passes = run_passes(layer, given, form, backend=backend, top_count=2, weight=0.75)
        assert passes.run.layer.is_capturable
        top, expected = passes.run.tops[0], passes.reference.tops[0]
        np.testing.assert_allclose(top.data, expected.data, rtol=2e-5)
        passes.check(name=form, rtol=10)
        found = backend.forms.found(passes.run.bottoms[0].diff_memory, shape)
        assert found.dtype == passes.form.dtype
        assert found == passes.form or axis != 1
    backend.check_faults()


def test_a_hopeless_score(backend: CupyBackend) -> None:
    run = set_up_layer(loss_layer(), [[[0.0, 1000.0]], [0]], context=LayerContext(backend=backend, phase=TRAIN))
    assert run.forward()[0] == pytest.approx(-math.log(np.finfo(np.float32).tiny))


def test_what_is_no_number_shows(backend: CupyBackend) -> None:
    run = set_up_layer(
        loss_layer(), [[[0.0, np.nan], [1, 2]], [0, 0]], context=LayerContext(backend=backend, phase=TRAIN)
    )
    assert np.isnan(run.forward()[0])


def test_everything_is_ignored(backend: CupyBackend) -> None:
    passes = run_passes(
        loss_layer("loss_param { ignore_label: 9 }"), [scores((4, 3)), np.full(4, 9.0)], backend=backend, top_count=1
    )
    assert passes.run.tops[0].data == 0
    assert not passes.run.bottoms[0].diff.any()


def test_an_empty_batch(backend: CupyBackend) -> None:
    run = set_up_layer(
        loss_layer(), [np.zeros((0, 3)), np.zeros(0)], context=LayerContext(backend=backend, phase=TRAIN)
    )
    assert run.forward()[0] == 0
    assert not run.layer.is_capturable


def run_with(backend: CupyBackend, labels: Any, shape: tuple[int, ...] = (4, 3), extra: str = "") -> LayerRun:
    context = LayerContext(backend=backend, phase=TRAIN)
    run = set_up_layer(loss_layer(extra), [np.zeros(shape), labels], context=context)
    run.layer.forward(run.bottoms, run.tops)
    run.layer.backward(run.tops, [True, False], run.bottoms)
    return run


@pytest.mark.parametrize("label", [3, -1, 1e9, float("nan"), float("inf"), 2.99])
def test_a_wrong_label_is_reported_when_somebody_asks(backend: CupyBackend, label: float) -> None:
    run = run_with(backend, [0, 1, label, 2])
    if label == 2.99:
        backend.check_faults()  # a fraction is cut off
        return
    with pytest.raises(
        LayerError, match=r"'loss' \(SoftmaxWithLoss\).*'label'.*position 2 .*3 classes.*0 to 2"
    ) as caught:
        backend.check_faults()
    assert f"label {label:g} " in str(caught.value)
    backend.check_faults()  # said once
    assert not run.bottoms[0].diff[2].any()


def test_the_first_wrong_label_is_named_with_its_pixel(backend: CupyBackend) -> None:
    labels = np.zeros((2, 2, 3))
    labels[0, 0, 1] = 255
    labels[1, 1, 0], labels[1, 1, 2] = 7, -3
    run = run_with(backend, labels, (2, 3, 2, 3), "loss_param { ignore_label: 255 }")
    with pytest.raises(LayerError, match=r"label 7 at position 1 of the batch, pixel 3"):
        backend.check_faults()
    run.layer.forward(run.bottoms, run.tops)
    del run  # whoever is gone says nothing
    backend.check_faults()


def test_labels_have_no_gradient(backend: CupyBackend) -> None:
    run = run_with(backend, [0, 1, 2, 0])
    with pytest.raises(LayerError, match=r"no gradient by .*'label'"):
        run.layer.backward(run.tops, [True, True], run.bottoms)


@pytest.mark.parametrize(
    ("shape", "form"), [((6, 10), "float32"), ((2, 5, 3, 4), "bfloat16 last"), ((2, 5, 30, 40), "float16")]
)
def test_recorded_passes(backend: CupyBackend, shape: tuple[int, ...], form: str) -> None:
    check_recording('type: "Softmax"', [[scores(shape)], [-scores(shape)]], form, backend=backend)
    labels = labels_for(shape, 1, 1)
    batches = [[scores(shape), labels], [-scores(shape), labels[::-1].copy()]]
    check_recording(loss_layer("loss_param { ignore_label: 1 }"), batches, form, backend=backend, top_count=2)


def test_the_weight_is_read_where_the_gpu_has_it(backend: CupyBackend) -> None:
    run = run_with(backend, [0, 1, 2, 0])
    first = run.bottoms[0].diff.copy()
    lay(backend, run.tops[0].diff_memory, np.array(1024.0), form_of("float32", ()))
    run.layer.backward(run.tops, [True, False], run.bottoms)
    np.testing.assert_array_equal(run.bottoms[0].diff, first * 1024)
