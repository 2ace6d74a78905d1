from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case


def loss_layer(extra: str = "") -> str:
    return f'type: "ContrastiveLoss" bottom: "a" bottom: "b" bottom: "similar" contrastive_loss_param {{ {extra} }}'


def plain_loss(a: Any, b: Any, similar: Any, margin: float, legacy: bool) -> float:
    total = 0.0
    similar = similar.ravel()
    for n in range(len(a)):
        squared = sum((p - q) ** 2 for p, q in zip(a[n].ravel(), b[n].ravel(), strict=True))
        if int(similar[n]):
            total += squared
        elif legacy:
            total += max(margin - squared, 0)
        else:
            total += max(margin - squared**0.5, 0) ** 2
    return float(total / (2 * len(a)))


@pytest.mark.parametrize("name", golden_names("contrastive_loss") or ["contrastive_loss"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("shape", [(6, 3), (1, 1), (5, 4, 1, 1)])
def test_loss_and_gradient(shape: tuple[int, ...], legacy: bool) -> None:
    rng = np.random.default_rng(0)
    # Far apart, so that the 0.0001 which Caffe adds to the distance is below the tolerance; some beyond the margin.
    a, b = rng.normal(size=shape) * 30, rng.normal(size=shape) * 30 + 50
    similar = (np.arange(shape[0]) % 3 == 1).reshape(-1, *(1,) * (len(shape) - 1))
    distances = np.sqrt(((a - b) ** 2).reshape(shape[0], -1).sum(axis=1))
    margin = float(np.median(distances)) + 3.0
    layer = loss_layer(f"margin: {margin**2 if legacy else margin} legacy_version: {str(legacy).lower()}")
    run = check_gradient(layer, [a, b, similar], propagate=[True, True, False], atol=1e-4)
    assert run.bottoms[0].diff.any()
    assert set_up_layer(layer, [a, b, similar]).forward()[0] == pytest.approx(
        plain_loss(a, b, similar, margin**2 if legacy else margin, legacy)
    )


def test_equal_samples_that_should_differ_have_no_direction() -> None:
    run = set_up_layer(loss_layer(), [np.ones((2, 3)), np.ones((2, 3)), [0, 0.9]])
    assert run.forward()[0] == pytest.approx(0.5)
    run.layer.backward(run.tops, [True, True, False], run.bottoms)
    assert not run.bottoms[0].diff.any()


def test_only_one_side_learns() -> None:
    rng = np.random.default_rng(1)
    layer = loss_layer("margin: 100") + " loss_weight: 0.5"
    check_gradient(
        layer, [rng.normal(size=(3, 2)) * 30, rng.normal(size=(3, 2)), [1, 1, 1]], propagate=[False, True, False]
    )


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4, 3), (4, 2), (4,)), r"'b' is \(4, 2\).*4 rows of 3 values"),
        (((4, 3), (4, 3), (4, 2)), r"'similar' is \(4, 2\).*4 rows of 1 values"),
        (((4, 3), (4, 3), (5,)), r"'similar' is \(5,\)"),
        (((4, 3), (5, 3), (4,)), "the batch"),
    ],
)
def test_wrong_shapes(shapes: Any, message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        set_up_layer(loss_layer(), [np.zeros(shape) for shape in shapes])


def test_similarity_has_no_gradient() -> None:
    run = set_up_layer(loss_layer(), [np.zeros((2, 3)), np.ones((2, 3)), [0, 1]])
    run.forward()
    assert [run.layer.allow_force_backward(i) for i in range(3)] == [True, True, False]
    with pytest.raises(LayerError, match="'similar'"):
        run.layer.backward(run.tops, [True, True, True], run.bottoms)
