from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import away_from, check_gradient, set_up_layer

SHAPES = [(4, 3), (1,), (2, 3, 1, 4), (1, 5, 2, 3)]


def smooth_layer(sigma: float = 1.0, fields: str = "") -> str:
    return f'type: "SmoothL1Loss" {fields} smooth_l1_loss_param {{ sigma: {sigma} }}'


@pytest.mark.parametrize("propagate", [[True, True], [True, False], [False, True]])
@pytest.mark.parametrize("shape", SHAPES)
def test_l1(shape: tuple[int, ...], propagate: list[bool]) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=shape)
    b = a + away_from(rng.normal(size=shape), [0])
    (loss,) = set_up_layer('type: "L1Loss"', [a, b]).forward()
    expected = sum(abs(u - v) for u, v in zip(a.reshape(-1), b.reshape(-1), strict=True)) / shape[0]
    assert loss == pytest.approx(expected)
    check_gradient('type: "L1Loss" loss_weight: 0.5', [a, b], propagate=propagate)


def test_l1_of_equal_values_has_no_gradient() -> None:
    run = set_up_layer('type: "L1Loss"', [np.ones(3), np.ones(3)])
    assert run.forward()[0] == 0
    run.layer.backward(run.tops, [True, True], run.bottoms)
    assert not run.bottoms[0].diff.any()


@pytest.mark.parametrize("bottoms", [2, 3, 4])
@pytest.mark.parametrize("sigma", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_smooth_l1(shape: tuple[int, ...], sigma: float, bottoms: int) -> None:
    rng = np.random.default_rng(1)
    inside = rng.uniform(0.5, 2, size=shape) * rng.integers(0, 2, size=shape)
    outside = rng.uniform(0.5, 2, size=shape)
    border = 1 / sigma**2
    # Differences away from the border, whatever the inside weight.
    difference = away_from(rng.normal(0, 2 * border, size=shape), [-border, border], 0.02 * border)
    factor = np.where(inside == 0, 1, inside) if bottoms > 2 else 1
    b = rng.normal(size=shape)
    a = b + difference / factor
    blobs = [a, b, inside, outside][:bottoms]
    total = 0.0
    for place in np.ndindex(*shape):
        d = float(a[place] - b[place]) * (float(inside[place]) if bottoms > 2 else 1)
        f = 0.5 * (sigma * d) ** 2 if abs(d) < border else abs(d) - 0.5 * border
        total += f * (float(outside[place]) if bottoms > 3 else 1)
    (loss,) = set_up_layer(smooth_layer(sigma), blobs).forward()
    assert loss == pytest.approx(total / shape[0], rel=1e-6)
    for propagate in ([True, True], [True, False], [False, True]):
        text = smooth_layer(sigma, "loss_weight: 2")
        check_gradient(text, blobs, propagate=propagate + [False] * (bottoms - 2))


def test_backward_twice_gives_the_same() -> None:
    rng = np.random.default_rng(2)
    run = set_up_layer(smooth_layer(), [rng.normal(size=(3, 4)) for _ in range(4)])
    run.forward()
    results = []
    for _ in range(2):
        run.layer.backward(run.tops, [True, True, False, False], run.bottoms)
        results.append(run.bottoms[0].diff.copy())
    assert np.array_equal(*results)


def test_wrong_uses() -> None:
    with pytest.raises(ShapeMismatchError, match="they hold 6 and 8"):
        set_up_layer('type: "L1Loss"', [np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(ShapeMismatchError, match=r"bottom\[1\] 'bottom1' \(2, 3, 1\) and .*\(2, 3\)"):
        set_up_layer(smooth_layer(), [np.ones((2, 3)), np.ones((2, 3, 1))])
    with pytest.raises(LayerError, match="sigma is 0"):
        set_up_layer(smooth_layer(0), [np.ones(2), np.ones(2)])
    with pytest.raises(LayerError, match="takes 2 to 4 bottom"):
        set_up_layer(smooth_layer(), [np.ones(2)] * 5)
    run = set_up_layer(smooth_layer(), [np.ones(2)] * 3)
    run.forward()
    with pytest.raises(LayerError, match=r"no gradient by bottom\[2\]"):
        run.layer.backward(run.tops, [True, True, True], run.bottoms)
    assert [run.layer.allow_force_backward(index) for index in range(3)] == [True, True, False]
