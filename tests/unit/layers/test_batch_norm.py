from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from paratrain.proto import TEST, TRAIN
from tests.gradient_check import LayerRun, check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

SHAPES = [(4, 3), (5,), (2, 3, 4, 5), (3, 1, 2, 1), (2, 2, 3), (2, 3, 2, 2, 2)]


def batch_norm_layer(fields: str = "") -> str:
    return f'type: "BatchNorm" bottom: "x" batch_norm_param {{ {fields} }}'


def channel_statistics(x: np.ndarray[Any, Any]) -> tuple[list[float], list[float], int]:
    """Mean and variance of each channel by loops, and how many values a channel has."""
    channels = [x[:, c].reshape(-1).tolist() for c in range(x.shape[1])] if x.ndim > 1 else [x.tolist()]
    means = [sum(values) / len(values) for values in channels]
    variances = [sum((v - m) ** 2 for v in values) / len(values) for values, m in zip(channels, means, strict=True)]
    return means, variances, len(channels[0])


def store(run: LayerRun) -> None:
    """Give the statistics values: mean 0.5 and variance 2, scaled by a factor of 4."""
    for blob, value in zip(run.layer.blobs, (2.0, 8.0, 4.0), strict=True):
        blob.data[...] = value


@pytest.mark.parametrize("name", golden_names("batch_norm") or ["batch_norm_train"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_train_normalizes_each_channel(shape: tuple[int, ...], in_place: bool) -> None:
    x = np.random.default_rng(0).normal(3, 2, size=shape)
    (y,) = set_up_layer(batch_norm_layer(), [x], in_place=in_place).forward()
    means, variances, _ = channel_statistics(x)
    line = (1, -1) + (1,) * (len(shape) - 2) if len(shape) > 1 else (-1,)
    expected = (x - np.reshape(means, line)) / np.sqrt(np.reshape(variances, line) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(shape: tuple[int, ...], in_place: bool) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    check_gradient(batch_norm_layer("eps: 0.01"), [x], in_place=in_place)
    check_gradient(batch_norm_layer(), [x], in_place=in_place, phase=TEST, prepare=store)


def test_gradient_is_right_after_a_later_layer_has_overwritten_the_top() -> None:
    run = set_up_layer(batch_norm_layer(), [np.random.default_rng(2).normal(size=(2, 3, 4))])
    run.forward()
    top_diff = np.random.default_rng(3).normal(size=(2, 3, 4))
    results = []
    for junk in (False, True):
        if junk:
            run.tops[0].data[...] = 9
        run.tops[0].diff[...] = top_diff
        run.layer.backward(run.tops, [True], run.bottoms)
        results.append(run.bottoms[0].diff.copy())
    assert np.array_equal(*results)


def test_running_statistics() -> None:
    rng = np.random.default_rng(4)
    run = set_up_layer(batch_norm_layer("moving_average_fraction: 0.9"), [np.zeros((3, 2, 4))])
    expected = [np.zeros(2), np.zeros(2), np.zeros(1)]
    for _ in range(3):
        x = rng.normal(1, 3, size=(3, 2, 4))
        run.bottoms[0].data[...] = x
        run.forward()
        means, variances, count = channel_statistics(x)
        expected[0] = 0.9 * expected[0] + np.array(means)
        expected[1] = 0.9 * expected[1] + np.array(variances) * count / (count - 1)
        expected[2] = 0.9 * expected[2] + 1
    for blob, value in zip(run.layer.blobs, expected, strict=True):
        np.testing.assert_allclose(blob.data, value, rtol=1e-6)


@pytest.mark.parametrize(("phase", "fields"), [(TEST, ""), (TRAIN, "use_global_stats: true")])
def test_stored_statistics(phase: Any, fields: str) -> None:
    x = np.random.default_rng(5).normal(size=(2, 3, 4))
    run = set_up_layer(batch_norm_layer(fields), [x], phase=phase)
    store(run)
    np.testing.assert_allclose(run.forward()[0], (x - 0.5) / np.sqrt(2 + 1e-5))
    assert [float(blob.data.reshape(-1)[0]) for blob in run.layer.blobs] == [2, 8, 4]


def test_batch_statistics_in_test_phase_when_asked() -> None:
    x = np.random.default_rng(6).normal(size=(20, 3))
    run = set_up_layer(batch_norm_layer("use_global_stats: false"), [x], phase=TEST)
    assert run.forward()[0].std(axis=0) == pytest.approx(np.ones(3), rel=1e-3)
    assert run.layer.blobs[2].data[0] == 1


def test_unused_statistics_are_zero_not_a_division_by_zero() -> None:
    (y,) = set_up_layer(batch_norm_layer(), [np.ones((2, 3))], phase=TEST).forward()
    np.testing.assert_allclose(y, 1 / np.sqrt(1e-5))


def test_one_value_for_each_channel() -> None:
    run = set_up_layer(batch_norm_layer(), [np.full((1, 3), 7.0)])
    assert not run.forward()[0].any()
    assert not run.layer.blobs[1].data.any()


def test_blobs_are_statistics() -> None:
    layer = set_up_layer(
        batch_norm_layer("") + " param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }", [np.ones((2, 3))]
    ).layer
    assert layer.statistic_blobs == {0, 1, 2}
    assert [blob.shape for blob in layer.blobs] == [(3,), (3,), (1,)]


def test_reshape_to_another_batch_and_image() -> None:
    run = set_up_layer(batch_norm_layer(), [np.ones((2, 3, 4, 4))])
    rng = np.random.default_rng(7)
    for shape in ((5, 3, 6, 6), (1, 3, 2, 5)):
        run.bottoms[0].reshape(*shape)
        run.bottoms[0].data[...] = rng.normal(size=shape)
        run.layer.reshape(run.bottoms, run.tops)
        (y,) = run.forward()
        assert y.mean(axis=(0, 2, 3)) == pytest.approx(np.zeros(3), abs=1e-9)


def test_another_number_of_channels_is_refused() -> None:
    run = set_up_layer(batch_norm_layer(), [np.ones((2, 3, 4))])
    run.bottoms[0].reshape(2, 5, 4)
    with pytest.raises(
        ShapeMismatchError, match=r"'layer' \(BatchNorm\): bottom\[0\] 'x' \(2, 5, 4\) has 5 channels.*\(3,\)"
    ):
        run.layer.reshape(run.bottoms, run.tops)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (batch_norm_layer("scale_bias: true"), "add a Scale layer"),
        (batch_norm_layer("filler { value: 1 }"), "add a Scale layer"),
        (batch_norm_layer() + " param { lr_mult: 1 }", "lr_mult 1"),
    ],
)
def test_wrong_settings(text: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        set_up_layer(text, [np.ones((2, 3))])


def test_large_mean_in_single_precision() -> None:
    x = np.random.default_rng(8).normal(1000, 1, size=(64, 2, 20, 20))
    (y,) = set_up_layer(batch_norm_layer(), [x], dtype=np.float32).forward()
    exact = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, exact, atol=2e-3)
