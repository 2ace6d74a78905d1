"""EuclideanLoss, SigmoidCrossEntropyLoss and HingeLoss on the simulated GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.errors import LayerError
from paratrain.layers.base import LayerContext
from paratrain.proto import TRAIN
from tests.gradient_check import set_up_layer
from tests.unit.layers.cupy.passes import FORMS, check_recording, run_passes
from tests.unit.layers.golden import golden_names, run_golden_case

SHAPES = [(3,), (4, 6), (3, 5, 2, 7), (2, 3, 30, 40)]
EUCLIDEAN = 'type: "EuclideanLoss"'
CROSS_ENTROPY = 'type: "SigmoidCrossEntropyLoss" loss_param { ignore_label: 1 normalization: VALID }'
HINGE = 'name: "loss" type: "HingeLoss" bottom: "scores" bottom: "label" hinge_loss_param { norm: L%d }'


@pytest.fixture(scope="module")
def backend(simulated_gpu: Any) -> CupyBackend:
    return CupyBackend()


def pair(shape: tuple[int, ...], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape), rng.normal(size=shape).astype(np.float32)]


def questions(shape: tuple[int, ...], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    answers = rng.random(shape).astype(np.float32)
    answers[rng.random(shape) < 0.4] = 1
    return [rng.normal(size=shape) * 3, answers]


def classes(shape: tuple[int, ...], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape[1:], dtype=int))
    return [rng.normal(size=shape) * 2, rng.integers(0, count, size=shape[0]).astype(np.float32)]


@pytest.mark.parametrize("name", golden_names("euclidean", "sigmoid_cross", "hinge"))
def test_agrees_with_caffe(name: str) -> None:
    run = run_golden_case(name, backend="cupy")
    assert run.layer.is_capturable
    run.layer.backend.check_faults()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_euclidean_loss(backend: CupyBackend, shape: tuple[int, ...], form: str) -> None:
    passes = run_passes(EUCLIDEAN, pair(shape), form, backend=backend, propagate=[True, True], weight=0.5)
    np.testing.assert_allclose(passes.run.tops[0].data, passes.reference.tops[0].data, rtol=2e-5)
    passes.check(bottoms=(0, 1), name=form, rtol=50)


def test_euclidean_loss_of_two_shapes(backend: CupyBackend) -> None:
    x, targets = pair((3, 5, 2, 7))
    passes = run_passes(
        EUCLIDEAN, [x, targets.reshape(3, 70)], "bfloat16 last", backend=backend, propagate=[True, True]
    )
    passes.check(bottoms=(0, 1), name="bfloat16", rtol=2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", ["", "ignore_label: 1", "ignore_label: 1 normalization: VALID", "normalization: FULL"])
def test_sigmoid_cross_entropy_loss(backend: CupyBackend, shape: tuple[int, ...], form: str, loss: str) -> None:
    layer = f'type: "SigmoidCrossEntropyLoss" loss_param {{ {loss} }}'
    passes = run_passes(layer, questions(shape), form, backend=backend, weight=2)
    np.testing.assert_allclose(passes.run.tops[0].data, passes.reference.tops[0].data, rtol=2e-5)
    passes.check(name=form, rtol=50)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("norm", [1, 2])
def test_hinge_loss(backend: CupyBackend, shape: tuple[int, ...], form: str, norm: int) -> None:
    passes = run_passes(HINGE % norm, classes(shape), form, backend=backend, weight=2)
    np.testing.assert_allclose(passes.run.tops[0].data, passes.reference.tops[0].data, rtol=2e-5)
    passes.check(name=form, rtol=50)
    backend.check_faults()


def test_a_wrong_label_of_hinge_loss_is_reported(backend: CupyBackend) -> None:
    context = LayerContext(backend=backend, phase=TRAIN)
    run = set_up_layer(HINGE % 1, [np.eye(3), [0, 3, 2]], context=context)
    run.forward()
    with pytest.raises(LayerError, match=r"'loss' \(HingeLoss\).*label 3 at position 1 .*0 to 2"):
        backend.check_faults()


@pytest.mark.parametrize("layer", [EUCLIDEAN, CROSS_ENTROPY, HINGE % 2])
def test_an_empty_batch(backend: CupyBackend, layer: str) -> None:
    labels = np.zeros((0,)) if "Hinge" in layer else np.zeros((0, 3))
    run = set_up_layer(layer, [np.zeros((0, 3)), labels], context=LayerContext(backend=backend, phase=TRAIN))
    assert run.forward()[0] == 0


@pytest.mark.parametrize(("layer", "make"), [(EUCLIDEAN, pair), (CROSS_ENTROPY, questions), (HINGE % 1, classes)])
@pytest.mark.parametrize("form", ["float32", "bfloat16 last"])
def test_recorded_passes(backend: CupyBackend, layer: str, make: Any, form: str) -> None:
    shape = (2, 3, 30, 40)
    check_recording(layer, [make(shape), make(shape, 1)], form, backend=backend)
