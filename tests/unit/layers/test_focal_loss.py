from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer


def focal_layer(fields: str = "", others: str = "") -> str:
    return f'type: "FocalLoss" bottom: "x" bottom: "label" focal_loss_param {{ {fields} }} {others}'


def focal(
    x: npt.NDArray[np.float64], labels: npt.NDArray[np.float64], alpha: float, gamma: float, ignore: int
) -> float:
    """The sum over positions of x (outer, classes, inner)."""
    total = 0.0
    for n, s in np.ndindex(x.shape[0], x.shape[2]):
        label = int(labels.reshape(x.shape[0], x.shape[2])[n, s])
        if label == ignore:
            continue
        scores = [math.exp(value) for value in x[n, :, s]]
        p = scores[label] / sum(scores)
        total -= alpha * (1 - p) ** gamma * math.log(p)
    return total


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (1.0, 0.0), (0.75, 0.5), (2.0, 1.0)])
@pytest.mark.parametrize("shape", [(4, 3, 1), (2, 5, 6), (1, 2, 1)])
def test_values_and_gradient(shape: tuple[int, int, int], alpha: float, gamma: float) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=shape), rng.integers(0, shape[1], size=(shape[0], shape[2])).astype(float)
    fields = f"alpha: {alpha} gamma: {gamma}"
    (loss,) = set_up_layer(focal_layer(fields), [x, labels]).forward()
    assert loss == pytest.approx(focal(x, labels, alpha, gamma, -1) / labels.size, rel=1e-6)
    check_gradient(focal_layer(fields, "loss_weight: 3"), [x, labels], propagate=[True, False])


@pytest.mark.parametrize(
    ("loss_param", "divisor"),
    [
        ("normalization: VALID", 9),
        ("normalization: FULL", 12),
        ("normalization: BATCH_SIZE", 2),
        ("normalization: NONE", 1),
        ("normalize: false", 2),
    ],
)
def test_ignored_labels_and_normalization(loss_param: str, divisor: int) -> None:
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(2, 4, 6)), rng.integers(0, 4, size=(2, 6)).astype(float)
    labels.reshape(-1)[[0, 5, 8]] = 255
    text = focal_layer("", f"loss_param {{ ignore_label: 255 {loss_param} }}")
    (loss,) = set_up_layer(text, [x, labels]).forward()
    assert loss == pytest.approx(focal(x, labels, 0.25, 2, 255) / divisor)
    check_gradient(text, [x, labels], propagate=[True, False])


def test_without_focus_it_is_the_softmax_loss() -> None:
    rng = np.random.default_rng(2)
    blobs = [rng.normal(size=(3, 4, 2, 2)), rng.integers(0, 4, size=(3, 2, 2)).astype(float)]
    runs = [set_up_layer(text, blobs) for text in (focal_layer("alpha: 1 gamma: 0"), 'type: "SoftmaxWithLoss"')]
    for run in runs:
        run.forward()
        run.layer.backward(run.tops, [True, False], run.bottoms)
    assert float(runs[0].tops[0].data) == pytest.approx(float(runs[1].tops[0].data))
    np.testing.assert_allclose(runs[0].bottoms[0].diff, runs[1].bottoms[0].diff, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certain_scores_give_finite_numbers(gamma: float) -> None:
    x = np.array([[1e4, 0, 0], [0, 1e4, 0]])
    run = set_up_layer(focal_layer(f"gamma: {gamma}"), [x, np.array([0.0, 0.0])], dtype=np.float32)
    (loss,) = run.forward()
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert np.isfinite(loss)
    assert loss > 1
    assert np.isfinite(run.bottoms[0].diff).all()
    assert not run.bottoms[0].diff[0].any()


@pytest.mark.parametrize(("fields", "others"), [("", "softmax_param { axis: -1 }"), ("axis: 2", "")])
def test_the_second_top_and_another_axis(fields: str, others: str) -> None:
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(2, 3, 4)), rng.integers(0, 4, size=(2, 3)).astype(float)
    text = focal_layer(fields, others)
    loss, probability = set_up_layer(text, [x, labels], top_count=2).forward()
    np.testing.assert_allclose(probability, np.exp(x) / np.exp(x).sum(axis=2, keepdims=True))
    assert loss == pytest.approx(focal(x.reshape(6, 4, 1), labels.reshape(6, 1), 0.25, 2, -1) / 6)
    check_gradient(text, [x, labels], propagate=[True, False], top_count=2)


@pytest.mark.parametrize(
    ("fields", "message"), [("type: LINEAR", "LINEAR"), ("gamma: -1", "gamma is -1"), ("alpha: 0", "alpha 0")]
)
def test_wrong_settings(fields: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        set_up_layer(focal_layer(fields), [np.ones((2, 3)), np.zeros(2)])


def test_wrong_labels() -> None:
    with pytest.raises(ShapeMismatchError, match="needs 2 labels"):
        set_up_layer(focal_layer(), [np.ones((2, 3)), np.zeros((2, 2))])
    with pytest.raises(LayerError, match="the label 3 at position 1"):
        set_up_layer(focal_layer(), [np.ones((2, 3)), np.array([0, 3.0])]).forward()
