"""oneDNN's updates of flat arrays against their formulas in double precision."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends.base import AdamRule, MomentumRule, UpdateRule
from paratrain.backends.onednn import library
from paratrain.backends.onednn.primitive import Engine
from paratrain.backends.onednn.updates import OneDnnUpdate

pytestmark = pytest.mark.skipif(library.problem() is not None, reason=f"oneDNN is not of use here: {library.problem()}")

RATE, DECAY, SCALE = 0.02, 5e-4, 0.25
COUNT = 70_000

Doubles = npt.NDArray[np.float64]


def make(rule: UpdateRule, seed: int = 1) -> list[npt.NDArray[np.float32]]:
    """Data, diff and histories; squares are not negative."""
    random = np.random.default_rng(seed)
    arrays = [random.standard_normal(COUNT).astype(np.float32) for _ in range(4 if isinstance(rule, AdamRule) else 3)]
    if isinstance(rule, AdamRule):
        arrays[3] = np.abs(arrays[3])
    return arrays


def by_formula(rule: UpdateRule, data: Doubles, diff: Doubles, *history: Doubles) -> tuple[Doubles, ...]:
    gradient = SCALE * diff + DECAY * data
    if isinstance(rule, MomentumRule):
        velocity = rule.momentum * history[0] + RATE * gradient
        return data - velocity, velocity
    mean = rule.momentum * history[0] + (1 - rule.momentum) * gradient
    square = rule.momentum2 * history[1] + (1 - rule.momentum2) * gradient**2
    return data - RATE * rule.correction * mean / (np.sqrt(square) + rule.delta), mean, square


def update(rule: UpdateRule, arrays: list[npt.NDArray[np.float32]], cuts: list[int]) -> None:
    fused = OneDnnUpdate(Engine(library.load()))
    fused.begin(rule, arrays[0], [arrays[1]], arrays[2:])
    for start, stop in itertools.pairwise(cuts):
        assert fused.run(start, stop, rate=RATE, decay=DECAY, scale=SCALE, guarded=start % 2 == 0)


@pytest.mark.parametrize(
    "rule", [MomentumRule(0.9), MomentumRule(0.0), AdamRule(0.9, 0.999, 0.5, 1e-8), AdamRule(0, 0.5, 1, 0.1)]
)
@pytest.mark.parametrize("stop", [1, 1023, 1024, 3000, COUNT])
def test_agrees_with_the_formula(rule: UpdateRule, stop: int) -> None:
    arrays = make(rule)
    before = [array.copy() for array in arrays]
    update(rule, arrays, [0, stop])
    expected = by_formula(rule, *[array[:stop].astype(np.float64) for array in before])
    for found, wanted in zip([arrays[0], *arrays[2:]], expected, strict=True):
        np.testing.assert_allclose(found[:stop], wanted, rtol=2e-6, atol=2e-7)
    for found, untouched in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(found[stop:], untouched[stop:])


@pytest.mark.parametrize("rule", [MomentumRule(0.9), AdamRule(0.9, 0.999, 0.5, 1e-8)])
def test_bits_do_not_depend_on_where_ranges_begin(rule: UpdateRule) -> None:
    whole, parts = make(rule), make(rule)
    update(rule, whole, [0, COUNT])
    update(rule, parts, [0, 1, 5, 1000, 2024, 2025, 40_001, 69_999, COUNT])
    for one, other in zip([whole[0], *whole[2:]], [parts[0], *parts[2:]], strict=True):
        assert one.tobytes() == other.tobytes()


def test_more_lengths_than_are_kept() -> None:
    rule = MomentumRule(0.9)
    whole, parts = make(rule), make(rule)
    cuts = [length * (length + 1) // 2 for length in range(300)]
    update(rule, whole, [0, cuts[-1]])
    update(rule, parts, cuts)
    assert [array.tobytes() for array in whole] == [array.tobytes() for array in parts]


def test_momentum_may_change_from_step_to_step() -> None:
    data, diff, velocity = make(MomentumRule(0))
    fused = OneDnnUpdate(Engine(library.load()))
    for momentum in (0.5, 0.9, 0.5):
        expected = by_formula(MomentumRule(momentum), *[array.astype(np.float64) for array in (data, diff, velocity)])
        fused.begin(MomentumRule(momentum), data, [diff], [velocity])
        fused.run(0, COUNT, rate=RATE, decay=DECAY, scale=SCALE)
        np.testing.assert_allclose(data, expected[0], rtol=2e-6, atol=2e-7)
        np.testing.assert_allclose(velocity, expected[1], rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("rule", [MomentumRule(0.9), AdamRule(0.9, 0.999, 0.5, 1e-8)])
def test_two_gradients_are_added(rule: UpdateRule) -> None:
    arrays, other = make(rule), make(rule, seed=2)[1]
    before = [array.astype(np.float64) for array in arrays]
    fused = OneDnnUpdate(Engine(library.load()))
    fused.begin(rule, arrays[0], [arrays[1], other], arrays[2:])
    assert fused.run(0, COUNT, rate=RATE, decay=DECAY, scale=SCALE, guarded=True)
    expected = by_formula(rule, before[0], before[1] + other, *before[2:])
    for found, wanted in zip([arrays[0], *arrays[2:]], expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=3e-7)


@pytest.mark.parametrize("rule", [MomentumRule(0.9), AdamRule(0.9, 0.999, 0.5, 1e-8)])
@pytest.mark.parametrize("place", [0, 66_000, COUNT - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_changes_no_parameter_of_its_piece(
    rule: UpdateRule, place: int, value: float
) -> None:
    arrays = make(rule)
    arrays[1][place] = value
    data = arrays[0].copy()
    fused = OneDnnUpdate(Engine(library.load()))
    fused.begin(rule, arrays[0], [arrays[1]], arrays[2:])
    with np.errstate(all="ignore"):
        assert not fused.run(0, COUNT, rate=RATE, decay=DECAY, scale=SCALE, guarded=True)
    assert arrays[0][place] == data[place]
    assert np.isfinite(arrays[0]).all()


@pytest.mark.parametrize("count", [1, 2])
def test_an_update_that_overflows_is_no_fault_of_the_gradient(count: int) -> None:
    arrays = [np.full(2000, value, np.float32) for value in (1.0, 10.0, 0.0)]
    fused = OneDnnUpdate(Engine(library.load()))
    fused.begin(MomentumRule(0.9), arrays[0], [arrays[1]] * count, arrays[2:])
    with np.errstate(over="ignore", invalid="ignore"):
        assert fused.run(0, 2000, rate=3e38, decay=0.0, scale=1.0, guarded=True)
    assert np.isinf(arrays[0]).all()


def test_large_values_are_finite() -> None:
    arrays = [np.full(2000, value, np.float32) for value in (1.0, 1e30, 0.0)]  # squares overflow
    fused = OneDnnUpdate(Engine(library.load()))
    fused.begin(MomentumRule(0.9), arrays[0], [arrays[1]], arrays[2:])
    with np.errstate(over="ignore"):
        assert fused.run(0, 2000, rate=1e-4, decay=0.0, scale=1.0, guarded=True)
    assert arrays[0] == pytest.approx(-1e26)
