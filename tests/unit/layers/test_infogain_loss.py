from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from paratrain.proto import BlobProto, array_to_blob, write_binary
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def loss_layer(extra: str = "", matrix: bool = True) -> str:
    third = 'bottom: "h"' if matrix else ""
    return f'type: "InfogainLoss" bottom: "score" bottom: "label" {third} {extra}'


def plain_loss(scores: Any, labels: Any, matrix: Any, mode: str = "VALID", ignore: int | None = None) -> float:
    """Scores (N, C, inner), labels (N, inner), by loops."""
    total, valid = 0.0, 0
    for n in range(scores.shape[0]):
        for i in range(scores.shape[2]):
            label = int(labels[n, i])
            if label == ignore:
                continue
            probability = np.exp(scores[n, :, i]) / np.exp(scores[n, :, i]).sum()
            total -= sum(matrix[label, k] * np.log(probability[k]) for k in range(scores.shape[1]))
            valid += 1
    count = {"FULL": labels.size, "VALID": valid, "BATCH_SIZE": len(scores), "NONE": 1}[mode]
    return float(total / max(count, 1))


@pytest.mark.parametrize("name", golden_names("infogain") or ["infogain"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("ignore", [None, 1])
@pytest.mark.parametrize("mode", ["FULL", "VALID", "BATCH_SIZE", "NONE"])
def test_loss_and_gradient(mode: str, ignore: int | None) -> None:
    rng = np.random.default_rng(0)
    scores, labels, matrix = rng.normal(size=(3, 4, 2)), rng.integers(0, 4, size=(3, 2)), rng.normal(size=(4, 4))
    labels[1, 0] = 1
    ignored = f"ignore_label: {ignore}" if ignore is not None else ""
    layer = loss_layer(f"loss_param {{ normalization: {mode} {ignored} }}")
    check_gradient(layer, [scores, labels, matrix], propagate=[True, False, False])
    run = set_up_layer(layer, [scores, labels, matrix])
    assert run.forward()[0] == pytest.approx(plain_loss(scores, labels, matrix, mode, ignore))


@pytest.mark.parametrize(("shape", "axis"), [((1, 1), 1), ((4, 2, 3), -1), ((2, 3, 1, 4), 1), ((3, 2), 0)])
def test_gradient_over_shapes_and_axes(shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(1)
    classes = shape[axis]
    label_shape = shape[:axis] + shape[axis + 1 :] if axis >= 0 else shape[:axis]
    labels = rng.integers(0, classes, size=label_shape)
    if axis == 0:  # the batch is then the first axis of the labels too
        labels = labels.reshape(-1)[: shape[0]]
        with pytest.raises(ShapeMismatchError):
            set_up_layer(loss_layer("infogain_loss_param { axis: 0 }"), [np.zeros(shape), labels, np.zeros((3, 3))])
        return
    layer = loss_layer(f"infogain_loss_param {{ axis: {axis} }} loss_weight: 0.3")
    check_gradient(
        layer, [rng.normal(size=shape), labels, rng.normal(size=(classes, classes))], propagate=[True, False, False]
    )


def test_the_matrix_from_a_file_and_the_second_top(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    scores, labels, matrix = rng.normal(size=(5, 3, 1)), rng.integers(0, 3, size=(5, 1)), rng.normal(size=(3, 3))
    message = BlobProto()
    array_to_blob(matrix.astype(np.float32).reshape(1, 1, 3, 3), message)
    write_binary(tmp_path / "h.binaryproto", message)
    layer = loss_layer(f'infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }}', matrix=False)
    run = set_up_layer(layer, [scores, labels], top_count=2)
    loss, probability = run.forward()
    assert loss == pytest.approx(plain_loss(scores, labels, matrix), rel=1e-6)
    np.testing.assert_allclose(probability, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    check_gradient(layer, [scores, labels], propagate=[True, False])


def test_the_identity_makes_it_softmax_with_loss() -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.normal(size=(6, 5)), rng.integers(0, 5, size=6)
    softmax = set_up_layer('type: "SoftmaxWithLoss"', [scores, labels]).forward()[0]
    assert set_up_layer(loss_layer(), [scores, labels, np.eye(5)]).forward()[0] == pytest.approx(softmax)


@pytest.mark.parametrize(
    ("extra", "matrix", "message"),
    [
        ("", None, "source.*missing"),
        ('infogain_loss_param { source: "nowhere.binaryproto" }', None, "nowhere.binaryproto: no such file"),
        ("", (3, 3), r"'h' has the shape \(3, 3\); 4 classes need \(4, 4\)"),
        ("infogain_loss_param { axis: 2 }", (4, 4), "infogain_loss_param.axis is 2"),
        ("loss_param { normalize: true }", (4, 4), "normalize is not read"),
    ],
)
def test_what_cannot_be(extra: str, matrix: tuple[int, int] | None, message: str) -> None:
    bottoms = [np.zeros((2, 4)), np.zeros(2), *([np.zeros(matrix)] if matrix else [])]
    with pytest.raises(LayerError, match=message):
        set_up_layer(loss_layer(extra, matrix is not None), bottoms)


def test_only_the_scores_have_a_gradient() -> None:
    run = set_up_layer(loss_layer(), [np.zeros((2, 3)), [0, 1], np.eye(3)])
    run.forward()
    assert [run.layer.allow_force_backward(i) for i in range(3)] == [True, False, False]
    for propagate, name in (([True, True, False], "label"), ([True, False, True], "'h'")):
        with pytest.raises(LayerError, match=name):
            run.layer.backward(run.tops, propagate, run.bottoms)
    run.bottoms[1].data[0] = 3
    with pytest.raises(LayerError, match="label 3 at position 0"):
        run.forward()
