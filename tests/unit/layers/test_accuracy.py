from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def accuracy_layer(fields: str = "") -> str:
    return f'type: "Accuracy" bottom: "score" bottom: "label" accuracy_param {{ {fields} }}'


def plain(scores: Any, labels: Any, top_k: int, ignore: int | None) -> tuple[float, list[float]]:
    """Scores (N, C, inner), labels (N, inner), by loops."""
    batch, classes, inner = scores.shape
    right, seen = [0] * classes, [0] * classes
    for n in range(batch):
        for i in range(inner):
            label = int(labels[n, i])
            if label == ignore:
                continue
            others = [c for c in range(classes) if c != label and scores[n, c, i] >= scores[n, label, i]]
            seen[label] += 1
            right[label] += len(others) < top_k
    per_class = [r / s if s else 0.0 for r, s in zip(right, seen, strict=True)]
    return sum(right) / max(sum(seen), 1), per_class


@pytest.mark.parametrize("name", golden_names("accuracy") or ["accuracy"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("ignore", [None, 1, 255])
@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("inner", [1, 6])
def test_by_loops_with_ties(top_k: int, ignore: int | None, inner: int) -> None:
    rng = np.random.default_rng(top_k)
    scores, labels = rng.integers(0, 4, size=(9, 4, inner)), rng.integers(0, 3, size=(9, inner))
    if ignore == 255:
        labels[2] = 255
    fields = f"top_k: {top_k}" + (f" ignore_label: {ignore}" if ignore is not None else "")
    total, per_class = set_up_layer(accuracy_layer(fields), [scores, labels], top_count=2).forward()
    expected, expected_per_class = plain(scores, labels, top_k, ignore)
    assert total == pytest.approx(expected)
    assert total.shape == ()
    np.testing.assert_allclose(per_class, expected_per_class)


def test_axis() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(3, 5, 4)), rng.integers(0, 4, size=(3, 5))
    (total,) = set_up_layer(accuracy_layer("axis: -1"), [scores, labels]).forward()
    assert total == pytest.approx(plain(scores.transpose(0, 2, 1), labels, 1, None)[0])


def test_ties_count_against() -> None:
    assert set_up_layer(accuracy_layer(), [[[1.0, 1.0]], [0]]).forward()[0] == 0
    assert set_up_layer(accuracy_layer("top_k: 2"), [[[1.0, 1.0]], [0]]).forward()[0] == 1


def test_scores_that_are_no_numbers_are_wrong() -> None:
    assert set_up_layer(accuracy_layer(), [np.full((3, 4), np.nan), [0, 1, 2]]).forward()[0] == 0


def test_everything_ignored_is_zero() -> None:
    total, per_class = set_up_layer(accuracy_layer("ignore_label: 0"), [np.ones((2, 3)), [0, 0]], top_count=2).forward()
    assert total == 0
    assert not per_class.any()


def test_label_out_of_range() -> None:
    run = set_up_layer(accuracy_layer(), [np.zeros((4, 3)), [0, 1, 3, 2]])
    with pytest.raises(LayerError, match=r"'layer' \(Accuracy\).*label 3 at position 2 .*3 classes"):
        run.forward()


def test_has_no_gradient() -> None:
    run = set_up_layer(accuracy_layer(), [np.zeros((2, 3)), [0, 1]])
    run.forward()
    run.layer.backward(run.tops, [False, False], run.bottoms)
    with pytest.raises(LayerError, match="no gradient"):
        run.layer.backward(run.tops, [True, False], run.bottoms)


@pytest.mark.parametrize(
    ("scores", "labels", "fields", "message"),
    [
        ((4, 3), (5,), "", r"\(4, 3\).*\(5,\)"),
        ((4, 3), (4,), "axis: 2", r"axis is 2.*\(4, 3\)"),
        ((4, 3), (4,), "top_k: 4", "top_k is 4.*3 classes"),
        ((4, 3), (4,), "top_k: 0", "top_k is 0"),
    ],
)
def test_wrong_shapes(scores: tuple[int, ...], labels: tuple[int, ...], fields: str, message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        set_up_layer(accuracy_layer(fields), [np.zeros(scores), np.zeros(labels)])
