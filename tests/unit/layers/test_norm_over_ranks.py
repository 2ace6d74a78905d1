"""BatchNorm and BN whose batch is that of all ranks: what one rank makes of the batches together, and right gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.proto import TEST, TRAIN
from tests.gradient_check import LayerRun, set_up_layer
from tests.unit.layers.ranks import together

Array = npt.NDArray[Any]
LAYERS = {
    "BatchNorm": 'type: "BatchNorm" bottom: "x" batch_norm_param { moving_average_fraction: 0.9 eps: 0.01 }',
    "BN": 'type: "BN" bottom: "x" bn_param { slope_filler { value: 1.5 } bias_filler { value: 0.5 } momentum: 0.8 eps: 0.01 }',
    "SegNet's BN": 'type: "BN" bottom: "x" bn_param { scale_filler { value: 1.5 } shift_filler { value: 0.5 } }',
}
STORED = [
    ('type: "BatchNorm" bottom: "x"', TEST),
    ('type: "BatchNorm" bottom: "x" batch_norm_param { use_global_stats: true }', TRAIN),
    ('type: "BN" bottom: "x" bn_param { slope_filler { value: 1 } }', TEST),
    ('type: "BN" bottom: "x" bn_param { slope_filler { value: 1 } frozen: true }', TRAIN),
    ('type: "BN" bottom: "x" bn_param { scale_filler { value: 1 } bn_mode: INFERENCE }', TRAIN),
]


def make_ranks(text: str, batches: list[Array], *, in_place: bool = False) -> list[LayerRun]:
    runs = [set_up_layer(text, [batch], in_place=in_place) for batch in batches]
    for run in runs:
        run.layer.context.normalizes_over_ranks = True
    return runs


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_ranks_are_one_with_the_whole_batch(kind: str, in_place: bool) -> None:
    """Three batches of unequal sizes; outputs, running statistics over two passes, gradients."""
    rng = np.random.default_rng(5)
    batches = [rng.normal(2, 3, size=(size, 3, 2, 4)) for size in (2, 1, 4)]
    top_diffs = [rng.normal(size=batch.shape) for batch in batches]
    whole = set_up_layer(LAYERS[kind], [np.concatenate(batches)])
    runs = make_ranks(LAYERS[kind], batches, in_place=in_place)
    for _ in range(2):
        for run, batch in zip(runs, batches, strict=True):
            run.bottoms[0].data[...] = batch
        whole.forward()
        outputs = together(runs, lambda run: run.forward()[0])
        np.testing.assert_allclose(np.concatenate(outputs), whole.tops[0].data, rtol=1e-9, atol=1e-12)
    for run in runs:
        for blob, other, first in zip(run.layer.blobs, whole.layer.blobs, runs[0].layer.blobs, strict=True):
            np.testing.assert_allclose(blob.data, other.data, rtol=1e-9)
            assert np.array_equal(blob.data, first.data)
    whole.tops[0].diff[...] = np.concatenate(top_diffs)
    whole.layer.backward(whole.tops, [True], whole.bottoms)
    for run, diff in zip(runs, top_diffs, strict=True):
        run.tops[0].diff[...] = diff
    together(runs, lambda run: run.layer.backward(run.tops, [True], run.bottoms))
    found = np.concatenate([run.bottoms[0].diff for run in runs])
    np.testing.assert_allclose(found, whole.bottoms[0].diff, rtol=1e-9, atol=1e-12)
    for index, blob in enumerate(whole.layer.blobs):
        if index not in whole.layer.statistic_blobs:
            total = sum(run.layer.blobs[index].diff for run in runs)
            np.testing.assert_allclose(total, blob.diff, rtol=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
def test_numeric_gradient_over_two_ranks(kind: str) -> None:
    """What both ranks' weighted outputs change by when one number of one rank's batch does."""
    rng = np.random.default_rng(6)
    batches = [rng.normal(1, 2, size=(size, 2, 3)) for size in (2, 1)]
    weights = [rng.normal(size=batch.shape) for batch in batches]
    runs = make_ranks(LAYERS[kind], batches)

    def value() -> float:
        outputs = together(runs, lambda run: run.forward()[0])
        return float(sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)))

    value()
    for run, weight in zip(runs, weights, strict=True):
        run.tops[0].diff[...] = weight
    together(runs, lambda run: run.layer.backward(run.tops, [True], run.bottoms))
    for run in runs:
        data, found = run.bottoms[0].data.reshape(-1), run.bottoms[0].diff.reshape(-1).copy()
        numeric = []
        for index in range(data.size):
            before, ends = data[index], []
            for step in (1e-5, -1e-5):
                data[index] = before + step
                ends.append(value())
            data[index] = before
            numeric.append((ends[0] - ends[1]) / 2e-5)
        np.testing.assert_allclose(found, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("text", "phase"), STORED)
def test_stored_statistics_ask_no_other_rank(text: str, phase: Any) -> None:
    def refuse(_array: Any) -> None:
        raise AssertionError("a sum over ranks")

    x = np.random.default_rng(7).normal(size=(2, 3, 4))
    alone, run = (set_up_layer(text, [x], phase=phase) for _ in range(2))
    run.layer.context.normalizes_over_ranks = True
    run.layer.context.sum_over_ranks = refuse
    assert np.array_equal(run.forward()[0], alone.forward()[0])
    run.tops[0].diff[...] = x
    run.layer.backward(run.tops, [True], run.bottoms)
