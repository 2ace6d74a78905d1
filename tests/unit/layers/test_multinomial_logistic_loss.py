from __future__ import annotations

import math

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

LAYER = 'type: "MultinomialLogisticLoss" bottom: "probability" bottom: "label"'


@pytest.mark.parametrize("name", golden_names("multinomial") or ["multinomial"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("shape", [(5, 4), (1, 1), (3, 2, 3, 1)])
def test_loss_and_gradient(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.1, 1, size=shape)
    labels = rng.integers(0, np.prod(shape[1:]), size=shape[0])
    check_gradient(LAYER + " loss_weight: 2", [probability, labels], propagate=[True, False])
    expected = sum(-math.log(probability[n].ravel()[label]) for n, label in enumerate(labels)) / shape[0]
    assert set_up_layer(LAYER, [probability, labels]).forward()[0] == pytest.approx(expected)


def test_a_probability_of_zero_counts_as_the_threshold() -> None:
    run = set_up_layer(LAYER, [[[0.0, 1.0]], [0]])
    assert run.forward()[0] == pytest.approx(-math.log(1e-20))
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert run.bottoms[0].diff.tolist() == [[pytest.approx(-1e20), 0]]


def test_labels() -> None:
    run = set_up_layer(LAYER, [np.full((2, 3), 0.3), [0, -1]])
    with pytest.raises(LayerError, match="label -1 at position 1"):
        run.forward()
    with pytest.raises(LayerError, match="no gradient by .*'label'"):
        run.layer.backward(run.tops, [True, True], run.bottoms)
    with pytest.raises(ShapeMismatchError, match="needs 2 labels.* has 4"):
        set_up_layer(LAYER, [np.zeros((2, 3)), np.zeros((2, 2))])
