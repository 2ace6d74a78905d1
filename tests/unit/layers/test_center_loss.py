from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import LayerRun, check_gradient, set_up_layer


def center_layer(classes: int, fields: str = "", others: str = "") -> str:
    parameter = f"center_loss_param {{ num_output: {classes} {fields} }}"
    return f'type: "CenterLoss" bottom: "x" bottom: "label" {parameter} {others}'


def freeze(run: LayerRun) -> None:
    """What the centres get is no gradient of the loss."""
    run.layer.param_propagate_down = [False]


@pytest.mark.parametrize(("shape", "classes"), [((5, 3), 4), ((1, 1), 1), ((4, 2, 3, 1), 2), ((6, 2), 100)])
def test_values_gradient_and_centres(shape: tuple[int, ...], classes: int) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=shape), rng.integers(0, classes, size=shape[0]).astype(float)
    text = center_layer(classes, "center_filler { type: 'gaussian' }", "loss_weight: 0.3")
    run = set_up_layer(text, [x, labels])
    centres = run.layer.blobs[0].data.copy()
    rows = x.reshape(shape[0], -1)
    assert centres.shape == (classes, rows.shape[1])
    expected = 0.0
    moves: dict[int, list[Any]] = {}
    for row, label in zip(rows, labels.astype(int).tolist(), strict=True):
        expected += float(((row - centres[label]) ** 2).sum())
        moves.setdefault(label, []).append(centres[label] - row)
    assert run.forward()[0] == pytest.approx(expected / shape[0] / 2)
    run.layer.blobs[0].diff[...] = 1
    run.layer.backward(run.tops, [True, False], run.bottoms)
    for label in range(classes):
        found = moves.get(label, [])
        move = sum(found) / (1 + len(found)) if found else 0
        np.testing.assert_allclose(run.layer.blobs[0].diff[label], np.ones(rows.shape[1]) + move, rtol=1e-9)
    check_gradient(text, [x, labels], propagate=[True, False], prepare=freeze)


def test_axis() -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    run = set_up_layer(center_layer(5, "axis: -1"), [x, np.arange(6.0).reshape(2, 3) % 5])
    assert run.layer.blobs[0].shape == (5, 4)
    assert run.forward()[0] == pytest.approx((x**2).sum() / 12)


def test_centres_that_do_not_learn_are_left_alone() -> None:
    run = set_up_layer(center_layer(2), [np.ones((2, 3)), np.zeros(2)])
    freeze(run)
    run.forward()
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert not run.layer.blobs[0].diff.any()


@pytest.mark.parametrize(
    ("text", "labels", "error", "message"),
    [
        (center_layer(0), (2,), LayerError, "num_output"),
        (center_layer(2, "axis: 2"), (2,), ShapeMismatchError, "center_loss_param.axis is 2"),
        (center_layer(2), (2, 2), ShapeMismatchError, "needs 2 labels"),
    ],
)
def test_wrong_settings(text: str, labels: tuple[int, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        set_up_layer(text, [np.ones((2, 3)), np.zeros(labels)])


def test_wrong_labels_and_sizes() -> None:
    run = set_up_layer(center_layer(2), [np.ones((2, 3)), np.array([0, 2.0])])
    with pytest.raises(LayerError, match="the label 2 at position 1"):
        run.forward()
    run.bottoms[0].reshape(2, 4)
    with pytest.raises(ShapeMismatchError, match=r"4 values from axis 1 on; the centres \(2, 3\)"):
        run.layer.reshape(run.bottoms, run.tops)
