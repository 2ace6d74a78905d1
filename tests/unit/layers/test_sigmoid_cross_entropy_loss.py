from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def loss_layer(extra: str = "") -> str:
    return f'type: "SigmoidCrossEntropyLoss" bottom: "score" bottom: "target" {extra}'


def plain_loss(scores: Any, targets: Any, mode: str = "BATCH_SIZE", ignore: int | None = None) -> float:
    total, valid = 0.0, 0
    for x, t in zip(scores.ravel(), targets.ravel(), strict=True):
        if int(t) == ignore:
            continue
        p = 1 / (1 + math.exp(-x))
        total -= t * math.log(p) + (1 - t) * math.log(1 - p)
        valid += 1
    count = {"FULL": scores.size, "VALID": valid, "BATCH_SIZE": len(scores), "NONE": 1}[mode]
    return float(total / max(count, 1))


@pytest.mark.parametrize("name", golden_names("sigmoid_cross") or ["sigmoid_cross"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("ignore", [None, -1])
@pytest.mark.parametrize("mode", ["FULL", "VALID", "BATCH_SIZE", "NONE"])
def test_loss_and_gradient(mode: str, ignore: int | None) -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(3, 4, 2)) * 3, rng.uniform(size=(3, 8))
    if ignore is not None:
        targets[0, :3] = ignore
    ignored = f"ignore_label: {ignore}" if ignore is not None else ""
    layer = loss_layer(f"loss_param {{ normalization: {mode} {ignored} }} loss_weight: 1.5")
    run = check_gradient(layer, [scores, targets], propagate=[True, False])
    if ignore is not None:
        assert not run.bottoms[0].diff.ravel()[:3].any()
    assert set_up_layer(layer, [scores, targets]).forward()[0] == pytest.approx(
        plain_loss(scores, targets, mode, ignore)
    )


@pytest.mark.parametrize(
    ("given", "mode"), [("", "BATCH_SIZE"), ("normalize: true", "VALID"), ("normalize: false", "BATCH_SIZE")]
)
def test_old_and_missing_normalization(given: str, mode: str) -> None:
    rng = np.random.default_rng(1)
    scores, targets = rng.normal(size=(2, 3)), rng.integers(0, 2, size=(2, 3))
    run = set_up_layer(loss_layer(f"loss_param {{ {given} }}"), [scores, targets])
    assert run.forward()[0] == pytest.approx(plain_loss(scores, targets, mode))


def test_large_scores_do_not_overflow() -> None:
    run = set_up_layer(loss_layer(), [[[1000.0, -1000.0]], [[0, 1]]], dtype=np.float32)
    assert run.forward()[0] == pytest.approx(2000)
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert run.bottoms[0].diff.tolist() == [[1, -1]]


def test_what_cannot_be() -> None:
    with pytest.raises(ShapeMismatchError, match="they hold 6 and 4"):
        set_up_layer(loss_layer(), [np.zeros((2, 3)), np.zeros((2, 2))])
    run = set_up_layer(loss_layer(), [np.zeros((2, 3)), np.zeros((2, 3))])
    run.forward()
    with pytest.raises(LayerError, match="no gradient by .*'target'"):
        run.layer.backward(run.tops, [True, True], run.bottoms)
