"""Accuracy on the simulated GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.errors import LayerError
from paratrain.layers.base import LayerContext
from paratrain.proto import TEST
from tests.gradient_check import set_up_layer
from tests.unit.layers.cupy.passes import FORMS, check_recording, run_passes
from tests.unit.layers.golden import golden_names, run_golden_case

CASES = [((6, 10), 1), ((5, 700), 1), ((2, 5, 30, 4), 1), ((2, 3, 4, 5), -1), ((3, 1, 2), 1)]


@pytest.fixture(scope="module")
def backend(simulated_gpu: Any) -> CupyBackend:
    return CupyBackend()


def layer(extra: str = "") -> str:
    return f'name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label" accuracy_param {{ {extra} }}'


def batch(shape: tuple[int, ...], axis: int, seed: int = 0) -> list[Any]:
    """Scores with many ties, and labels of which a few are 1 more often than others."""
    rng, axis = np.random.default_rng(seed), axis % len(shape)
    rest = shape[:axis] + shape[axis + 1 :]
    labels = rng.integers(0, shape[axis], size=rest)
    labels[rng.random(rest) < 0.3] = min(1, shape[axis] - 1)
    return [np.round(rng.normal(size=shape) * 4), labels.astype(np.float32)]


@pytest.mark.parametrize("name", golden_names("accuracy"))
def test_agrees_with_caffe(name: str) -> None:
    run = run_golden_case(name, backend="cupy")
    assert run.layer.is_capturable
    run.layer.backend.check_faults()


@pytest.mark.parametrize(("shape", "axis"), CASES)
@pytest.mark.parametrize("extra", ["top_k: 1", "top_k: 3", "top_k: 2 ignore_label: 1"])
def test_agrees_with_the_plain_layer(backend: CupyBackend, shape: tuple[int, ...], axis: int, extra: str) -> None:
    if shape[axis] < 3:
        extra = extra.replace("top_k: 3", "top_k: 1").replace("top_k: 2", "top_k: 1")
    for form in FORMS:
        passes = run_passes(
            layer(f"axis: {axis} {extra}"),
            batch(shape, axis),
            form,
            backend=backend,
            top_count=2,
            propagate=[False, False],
        )
        for top, expected in zip(passes.run.tops, passes.reference.tops, strict=True):
            np.testing.assert_array_equal(top.data, expected.data.astype(np.float32))
    backend.check_faults()


def test_scores_that_are_no_numbers(backend: CupyBackend) -> None:
    scores = np.array([[np.nan, 1, 2], [3, np.nan, 2], [1, 2, 3]])
    passes = run_passes(layer(), [scores, np.array([0, 0, 2])], backend=backend, propagate=[False, False])
    assert passes.run.tops[0].data == passes.reference.tops[0].data.astype(np.float32)


def test_a_wrong_label_is_reported(backend: CupyBackend) -> None:
    context = LayerContext(backend=backend, phase=TEST)
    run = set_up_layer(layer(), [np.eye(3), [0, 4, 2]], context=context)
    assert run.forward()[0] == 1
    with pytest.raises(LayerError, match=r"'accuracy' \(Accuracy\).*label 4 at position 1 .*0 to 2"):
        backend.check_faults()


def test_it_has_no_gradient(backend: CupyBackend) -> None:
    run = set_up_layer(layer(), [np.eye(3), [0, 1, 2]], context=LayerContext(backend=backend, phase=TEST))
    run.forward()
    with pytest.raises(LayerError, match="no gradient"):
        run.layer.backward(run.tops, [True, False], run.bottoms)


def test_a_recorded_pass(backend: CupyBackend) -> None:
    shape = (2, 5, 6, 4)
    check_recording(layer(), [batch(shape, 1), batch(shape, 1, 1)], "bfloat16 last", backend=backend, top_count=2)
