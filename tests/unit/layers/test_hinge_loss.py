from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def loss_layer(norm: str = "L1", extra: str = "") -> str:
    return f'type: "HingeLoss" bottom: "score" bottom: "label" hinge_loss_param {{ norm: {norm} }} {extra}'


def plain_loss(scores: Any, labels: Any, norm: str) -> float:
    total = 0.0
    for n, label in enumerate(labels):
        for k, value in enumerate(scores[n].ravel()):
            margin = max(0.0, 1 - value if k == label else 1 + value)
            total += margin if norm == "L1" else margin**2
    return float(total / len(labels))


@pytest.mark.parametrize("name", golden_names("hinge") or ["hinge"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("shape", [(5, 4), (1, 1), (3, 2, 3, 1)])
def test_loss_and_gradient(shape: tuple[int, ...], norm: str) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=shape) * 2
    labels = rng.integers(0, np.prod(shape[1:]), size=shape[0])
    layer = loss_layer(norm, "loss_weight: 0.7")
    run = check_gradient(layer, [scores, labels], propagate=[True, False], kinks=[-1, 1])
    assert set_up_layer(layer, [run.bottoms[0].data, labels]).forward()[0] == pytest.approx(
        plain_loss(run.bottoms[0].data, labels, norm)
    )


def test_scores_beyond_the_margin_cost_nothing() -> None:
    run = set_up_layer(loss_layer(), [[[3.0, -2.0], [-5.0, 1.5]], [0, 1]])
    assert run.forward()[0] == 0
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert not run.bottoms[0].diff.any()


def test_labels() -> None:
    run = set_up_layer(loss_layer(), [np.zeros((3, 2)), [0, 2, 1]])
    with pytest.raises(LayerError, match="label 2 at position 1 .*2 classes"):
        run.forward()
    run.bottoms[1].data[1] = 0
    run.forward()
    with pytest.raises(LayerError, match="no gradient by .*'label'"):
        run.layer.backward(run.tops, [True, True], run.bottoms)
    with pytest.raises(ShapeMismatchError, match="needs 3 labels.* has 6"):
        set_up_layer(loss_layer(), [np.zeros((3, 2)), np.zeros((3, 2))])
