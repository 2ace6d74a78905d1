from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

MODES = ["FULL", "VALID", "BATCH_SIZE", "NONE"]


def loss_layer(extra: str = "") -> str:
    return f'type: "SoftmaxWithLoss" bottom: "score" bottom: "label" {extra}'


def plain_loss(scores: Any, labels: Any, mode: str, ignore: int | None = None) -> float:
    """Scores (N, C, inner), labels (N, inner), by loops."""
    batch, _, inner = scores.shape
    total, valid = 0.0, 0
    for n in range(batch):
        for i in range(inner):
            label = int(labels[n, i])
            if label == ignore:
                continue
            powers = [math.exp(value) for value in scores[n, :, i]]
            total -= math.log(powers[label] / sum(powers))
            valid += 1
    count = {"FULL": batch * inner, "VALID": valid, "BATCH_SIZE": batch, "NONE": 1}[mode]
    return float(total / max(count, 1))


@pytest.mark.parametrize("name", golden_names("softmax_loss") or ["softmax_loss"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("ignore", [None, 2])
@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradient(mode: str, ignore: int | None) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(3, 4, 5)), rng.integers(0, 4, size=(3, 5))
    labels[0, :2] = 2
    layer = loss_layer(
        f"loss_param {{ normalization: {mode} {f'ignore_label: {ignore}' if ignore is not None else ''} }}"
    )
    run = check_gradient(layer, [scores, labels], propagate=[True, False])
    gradient = np.moveaxis(run.bottoms[0].diff, 1, -1)
    run = set_up_layer(layer, [scores, labels])
    assert run.forward()[0] == pytest.approx(plain_loss(scores, labels, mode, ignore))
    if ignore is not None:
        assert not gradient[labels == ignore].any()
        assert gradient[labels != ignore].all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (2, 3, 1, 4)])
def test_gradient_over_shapes(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, shape[1], size=(shape[0], *shape[2:]))
    check_gradient(loss_layer("loss_weight: 0.3"), [rng.normal(size=shape), labels], propagate=[True, False])


def test_classes_on_another_axis() -> None:
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=(2, 3, 4)), rng.integers(0, 4, size=(2, 3))
    layer = loss_layer("softmax_param { axis: -1 }")
    check_gradient(layer, [scores, labels], propagate=[True, False])
    run = set_up_layer(layer, [scores, labels])
    assert run.forward()[0] == pytest.approx(plain_loss(scores.transpose(0, 2, 1), labels, "VALID"))


@pytest.mark.parametrize(("normalize", "mode"), [("true", "VALID"), ("false", "BATCH_SIZE")])
def test_old_normalize(normalize: str, mode: str) -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.normal(size=(2, 3, 4)), rng.integers(0, 3, size=(2, 4))
    text = loss_layer(f"loss_param {{ normalize: {normalize} ignore_label: 1 }}")
    assert set_up_layer(text, [scores, labels]).forward()[0] == pytest.approx(plain_loss(scores, labels, mode, 1))
    both = loss_layer(f"loss_param {{ normalize: {normalize} normalization: NONE }}")
    assert set_up_layer(both, [scores, labels]).forward()[0] == pytest.approx(plain_loss(scores, labels, "NONE"))


@pytest.mark.parametrize("mode", MODES)
def test_everything_ignored_is_zero(mode: str) -> None:
    text = loss_layer(f"loss_param {{ normalization: {mode} ignore_label: 255 }}")
    run = set_up_layer(text, [np.ones((2, 3)), [255, 255]])
    assert run.forward()[0] == 0
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert not run.bottoms[0].diff.any()


def test_second_top_is_the_probability() -> None:
    scores = np.random.default_rng(4).normal(size=(2, 3))
    run = set_up_layer(loss_layer(), [scores, [0, 2]], top_count=2)
    _, probability = run.forward()
    np.testing.assert_allclose(probability, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    assert run.layer.loss_weights == [1, 0]


def test_loss_of_a_hopeless_score_is_finite() -> None:
    run = set_up_layer(loss_layer(), [[[0.0, 1000.0]], [0]], dtype=np.float32)
    assert run.forward()[0] == pytest.approx(-math.log(np.finfo(np.float32).tiny))


def test_reshape_to_another_batch() -> None:
    run = set_up_layer(loss_layer(), [np.zeros((2, 4)), [0, 1]])
    assert run.forward()[0] == pytest.approx(math.log(4))
    for batch in (5, 1):
        run.bottoms[0].reshape(batch, 4)
        run.bottoms[1].reshape(batch)
        run.bottoms[0].data[...] = 0
        run.bottoms[1].data[...] = 3
        run.layer.reshape(run.bottoms, run.tops)
        assert run.forward()[0] == pytest.approx(math.log(4))


@pytest.mark.parametrize("label", [3, -1, 1e9, float("nan"), float("inf")])
def test_label_out_of_range(label: float) -> None:
    run = set_up_layer(loss_layer(), [np.zeros((4, 3)), [0, 1, label, 2]])
    with pytest.raises(
        LayerError, match=r"'layer' \(SoftmaxWithLoss\).*'label'.*position 2 .*3 classes.*0 to 2"
    ) as caught:
        run.forward()
    assert f"label {label:g} " in str(caught.value)


def test_label_out_of_range_names_the_pixel() -> None:
    labels = np.zeros((2, 2, 3))
    labels[1, 1, 0] = 7
    run = set_up_layer(loss_layer("loss_param { ignore_label: 255 }"), [np.zeros((2, 3, 2, 3)), labels])
    with pytest.raises(LayerError, match=r"label 7 at position 1 of the batch, pixel 3"):
        run.forward()


def test_labels_have_no_gradient() -> None:
    run = set_up_layer(loss_layer(), [np.zeros((2, 3)), [0, 1]])
    run.forward()
    assert run.layer.allow_force_backward(0)
    assert not run.layer.allow_force_backward(1)
    with pytest.raises(LayerError, match=r"no gradient by .*'label'"):
        run.layer.backward(run.tops, [True, True], run.bottoms)


@pytest.mark.parametrize(
    ("scores", "labels", "extra", "message"),
    [
        ((4, 3), (5,), "", r"\(4, 3\).*\(5,\)"),
        ((4, 3, 2), (4,), "", r"needs 8 labels.*has 4"),
        ((4, 3), (4,), "softmax_param { axis: 2 }", "axis is 2"),
    ],
)
def test_wrong_shapes(scores: tuple[int, ...], labels: tuple[int, ...], extra: str, message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        set_up_layer(loss_layer(extra), [np.zeros(scores), np.zeros(labels)])


def test_a_loss_cannot_work_in_place() -> None:
    with pytest.raises(LayerError, match="in place"):
        set_up_layer(loss_layer(), [np.zeros((4, 3)), np.zeros(4)], in_place=True)


def test_fork_fields_are_refused() -> None:
    for field in ("normalization: PRE_FIXED", "weight_by_label_freqs: true", "class_weighting: 2"):
        with pytest.raises(LayerError, match="not supported"):
            set_up_layer(loss_layer(f"loss_param {{ {field} }}"), [np.zeros((4, 3)), np.zeros(4)])
