from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.errors import LayerError
from paratrain.layers.base import Clock, LayerContext
from paratrain.proto import TEST, TRAIN
from tests.gradient_check import LayerRun, check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case

RATIO = 'name: "drop" type: "Dropout" dropout_param { dropout_ratio: %g }'


def context(
    rank: int = 0, size: int = 1, seed: int = 3, phase: Any = TRAIN, iteration: int = 0, dtype: Any = np.float32
) -> LayerContext:
    return LayerContext(
        backend=create_backend("numpy"),
        phase=phase,
        dtype=dtype,
        seed=seed,
        rank=rank,
        size=size,
        clock=Clock(iteration),
    )


def mask(
    shape: tuple[int, ...], layer: str = RATIO % 0.5, in_place: bool = False, **where: Any
) -> np.ndarray[Any, Any]:
    (y,) = set_up_layer(layer, [np.ones(shape)], context=context(**where), in_place=in_place).forward()
    return y


def test_golden() -> None:
    run_golden_case("dropout_test")


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_share_and_scale(ratio: float) -> None:
    y = mask((200, 300), RATIO % ratio)
    kept = y[y != 0]
    np.testing.assert_allclose(kept, 1 / (1 - ratio), rtol=1e-6)
    assert 1 - kept.size / y.size == pytest.approx(ratio, abs=0.01)
    assert (y == 0).mean(axis=0).std() == pytest.approx(np.sqrt(ratio * (1 - ratio) / 200), rel=0.2)


def test_ratio_zero_keeps_everything() -> None:
    assert np.all(mask((5, 6), RATIO % 0) == 1)


def test_repeats_for_the_same_step_only() -> None:
    shape = (20, 10)
    assert np.array_equal(mask(shape), mask(shape))
    assert np.array_equal(mask(shape), mask(shape, in_place=True))
    assert not np.array_equal(mask(shape), mask(shape, iteration=1))
    assert not np.array_equal(mask(shape), mask(shape, seed=4))
    assert not np.array_equal(mask(shape), mask(shape, (RATIO % 0.5).replace('"drop"', '"other"')))


def test_next_step_draws_anew() -> None:
    where = context()
    run = set_up_layer(RATIO % 0.5, [np.ones((20, 10))], context=where)
    first = run.forward()[0]
    where.clock.sub_iteration = 1
    second = run.forward()[0]
    where.clock.sub_iteration = 0
    assert not np.array_equal(first, second)
    assert np.array_equal(first, run.forward()[0])


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_with_interleaved_rows_draw_what_one_rank_draws(size: int) -> None:
    batch = 8
    whole = mask((batch, 3, 5))
    for rank in range(size):
        part = mask((batch // size, 3, 5), rank=rank, size=size)
        assert np.array_equal(part, whole[rank::size])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 4, 2), ()])
def test_gradient(shape: tuple[int, ...], in_place: bool) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    check_gradient(RATIO % 0.4, [x], in_place=in_place, context=context(dtype=np.float64))


@pytest.mark.parametrize("in_place", [False, True])
def test_test_phase_is_the_identity(in_place: bool) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    test = context(phase=TEST, dtype=np.float64)
    run = set_up_layer(RATIO % 0.4, [x], context=test, in_place=in_place)
    assert np.array_equal(run.forward()[0], x)
    check_gradient(RATIO % 0.4, [x], in_place=in_place, context=test)


def test_scale_train_false_scales_in_test() -> None:
    layer = 'type: "Dropout" dropout_param { dropout_ratio: 0.2 scale_train: false }'
    y = mask((100, 100), layer)
    assert set(np.unique(y)) == {0, 1}
    np.testing.assert_allclose(mask((3, 4), layer, phase=TEST), 0.8, rtol=1e-6)


def test_reshape_to_another_batch() -> None:
    run = set_up_layer(RATIO % 0.5, [np.ones((4, 6))], context=context())
    first = run.forward()[0]

    def after(shape: tuple[int, ...], run: LayerRun) -> np.ndarray[Any, Any]:
        run.bottoms[0].reshape(*shape)
        run.bottoms[0].data[...] = 1
        run.layer.reshape(run.bottoms, run.tops)
        return run.forward()[0]

    larger = after((9, 6), run)
    assert np.array_equal(larger[:4], first)
    assert np.array_equal(after((2, 6), run), first[:2])


@pytest.mark.parametrize("ratio", [1, 1.5, -0.1])
def test_wrong_ratio(ratio: float) -> None:
    with pytest.raises(LayerError, match=r"layer 'drop' \(Dropout\): dropout_ratio"):
        mask((2, 2), RATIO % ratio)
