from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from paratrain.backends import create_backend
from paratrain.errors import LayerError, ShapeMismatchError
from paratrain.proto import TEST, SolverParameter
from paratrain.solvers import create_solver
from tests.gradient_check import LayerRun, check_gradient, set_up_layer
from tests.unit.layers.ranks import together

Array = npt.NDArray[Any]
SHAPES = [(4, 3), (2, 3, 4, 5), (3, 1, 2, 1), (2, 2, 3), (1, 4, 3, 2), (2, 3, 2, 2, 2)]
KINDS = ["BN", "SyncBN"]


def bn_layer(fields: str = "", kind: str = "BN") -> str:
    return f'type: "{kind}" bottom: "x" bn_param {{ {fields} }}'


def channel_values(x: Array, channel: int) -> list[float]:
    values: list[float] = x[:, channel].reshape(-1).tolist()
    return values


def mean_and_variance(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / len(values)


def fill(run: LayerRun, *values: float | Array) -> None:
    for blob, value in zip(run.layer.blobs, values, strict=False):
        blob.data[...] = np.reshape(value, blob.shape) if np.ndim(value) else value


def normalize(x: Array, slope: Array, bias: Array, eps: float, stored: tuple[Array, Array] | None = None) -> Array:
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        batch = mean_and_variance(channel_values(x, c))
        mean, variance = batch if stored is None else (stored[0][c], stored[1][c])
        y[:, c] = slope[c] * (x[:, c] - mean) / (variance + eps) ** 0.5 + bias[c]
    return y


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_train(shape: tuple[int, ...], kind: str, in_place: bool) -> None:
    rng = np.random.default_rng(0)
    x, slope, bias = rng.normal(2, 3, size=shape), rng.normal(size=shape[1]), rng.normal(size=shape[1])
    run = set_up_layer(bn_layer("eps: 0.01 momentum: 0.75", kind), [x], in_place=in_place)
    assert [blob.shape for blob in run.layer.blobs] == [(1, shape[1])] * 4
    fill(run, slope, bias)
    np.testing.assert_allclose(
        run.forward()[0], normalize(x, slope, bias, float(np.float32(0.01))), rtol=1e-9, atol=1e-9
    )
    for c in range(shape[1]):
        mean, variance = mean_and_variance(channel_values(x, c))
        assert run.layer.blobs[2].data[0, c] == pytest.approx(0.25 * mean)
        assert run.layer.blobs[3].data[0, c] == pytest.approx(0.25 * variance)
    parameters = [slope.reshape(1, -1), bias.reshape(1, -1)]
    check_gradient(bn_layer("eps: 0.01", kind), [x], parameters=parameters, in_place=in_place)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_stored_statistics(shape: tuple[int, ...], in_place: bool) -> None:
    rng = np.random.default_rng(1)
    x, values = rng.normal(size=shape), [rng.uniform(0.5, 2, size=shape[1]) for _ in range(4)]

    def store(run: LayerRun) -> None:
        fill(run, *values)

    run = set_up_layer(bn_layer(), [x], phase=TEST, in_place=in_place)
    store(run)
    expected = normalize(x, values[0], values[1], 1e-5, (values[2], values[3]))
    np.testing.assert_allclose(run.forward()[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(run.layer.blobs[2].data[0], values[2])
    parameters = [value.reshape(1, -1) for value in values[:2]]
    check_gradient(bn_layer(), [x], phase=TEST, in_place=in_place, prepare=store, parameters=parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen(kind: str) -> None:
    x = np.random.default_rng(2).normal(size=(2, 3, 4))
    run = set_up_layer(bn_layer("frozen: true slope_filler { value: 2 } bias_filler { value: 1 }", kind), [x])
    assert run.layer.statistic_blobs == {0, 1, 2, 3}
    np.testing.assert_allclose(run.forward()[0], 2 * x / np.sqrt(1 + 1e-5) + 1, rtol=1e-6)
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    assert not any(blob.diff.any() for blob in run.layer.blobs)
    check_gradient(bn_layer("frozen: true slope_filler { value: 2 }", kind), [x])


def test_fillers_and_statistics() -> None:
    run = set_up_layer(bn_layer("slope_filler { value: 3 } bias_filler { value: 0.5 }"), [np.ones((2, 3))])
    assert [blob.data.reshape(-1).tolist() for blob in run.layer.blobs] == [[3] * 3, [0.5] * 3, [0] * 3, [0] * 3]
    assert run.layer.statistic_blobs == {2, 3}
    assert not set_up_layer('type: "BN"', [np.ones((2, 3))]).layer.blobs[0].data.any()


def test_in_a_solver_only_slope_and_bias_learn() -> None:
    net = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
    layer { name: "bn" type: "BN" bottom: "x" top: "bn" param { lr_mult: 1 } param { lr_mult: 2 } param { lr_mult: 5 }
      bn_param { slope_filler { value: 1 } momentum: 0.5 } }
    layer { name: "ip" type: "InnerProduct" bottom: "bn" top: "ip"
      inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
    layer { name: "zero" type: "Input" top: "zero" input_param { shape { dim: 4 dim: 2 } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "zero" top: "loss" }
    """
    parameter = text_format.Parse(
        f"net_param {{ {net} }} base_lr: 0.1 weight_decay: 0.5 lr_policy: 'fixed' snapshot_after_train: false",
        SolverParameter(),
    )
    solver = create_solver(parameter, backend=create_backend("numpy"), seed=1)
    x = np.random.default_rng(6).normal(size=(4, 3))
    solver.net.blobs["x"].data[...] = x
    before = [entry.blob.data.copy() for entry in solver.net.parameters.entries]
    solver.step(1)
    entries = solver.net.parameters.entries
    assert [entry.label for entry in entries] == ["bn[0]", "bn[1]", "bn[2]", "bn[3]", "ip[0]", "ip[1]"]
    assert [entry.is_statistic for entry in entries] == [False, False, True, True, False, False]
    for entry, old in zip(entries, before, strict=True):
        assert not np.array_equal(entry.blob.data, old), entry.label
    # Neither the gradient, the decay nor lr_mult: 5 reaches the running mean and variance.
    np.testing.assert_allclose(entries[2].blob.data[0], x.mean(axis=0) / 2, rtol=1e-5)
    np.testing.assert_allclose(entries[3].blob.data[0], x.var(axis=0) / 2, rtol=1e-5)
    assert solver.net.layers[1].param_propagate_down == [True, True, False, False]


@pytest.mark.parametrize("phase", [0, 1])
def test_segnet_learn(phase: Any) -> None:
    rng = np.random.default_rng(3)
    x, slope, bias = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=3), rng.normal(size=3)
    text = bn_layer("scale_filler { value: 1 } shift_filler { value: 0.001 }")
    run = set_up_layer(text, [x], top_count=3, phase=phase)
    assert [blob.shape for blob in run.layer.blobs] == [(1, 3, 1, 1)] * 2
    assert not run.layer.statistic_blobs
    fill(run, slope, bias)
    y, mean, variance = run.forward()
    np.testing.assert_allclose(y, normalize(x, slope, bias, 1e-9), rtol=1e-9)
    for c in range(3):
        assert (mean[0, c, 0, 0], variance[0, c, 0, 0]) == pytest.approx(mean_and_variance(channel_values(x, c)))
    check_gradient(text, [x], phase=phase)


@pytest.mark.parametrize("in_place", [False, True])
def test_segnet_inference(in_place: bool) -> None:
    rng = np.random.default_rng(4)
    x, slope, bias = rng.normal(size=(2, 3, 4, 1)), rng.normal(size=3), rng.normal(size=3)
    run = set_up_layer(bn_layer("bn_mode: INFERENCE"), [x], in_place=in_place)
    fill(run, slope, bias)
    np.testing.assert_allclose(run.forward()[0], x * slope[:, None, None] + bias[:, None, None], rtol=1e-12)
    check_gradient(bn_layer("bn_mode: INFERENCE"), [x], in_place=in_place)


@pytest.mark.parametrize("in_place", [False, True])
def test_sync_bn_over_three_ranks_is_bn_over_the_whole_batch(in_place: bool) -> None:
    """The ranks are threads that wait for each other at every sum; their batches are not even of one size."""
    rng = np.random.default_rng(5)
    batches = [rng.normal(2, 3, size=(size, 3, 2, 4)) for size in (2, 1, 4)]
    top_diffs = [rng.normal(size=batch.shape) for batch in batches]
    slope, bias = rng.normal(size=3), rng.normal(size=3)
    whole = set_up_layer(bn_layer(), [np.concatenate(batches)])
    fill(whole, slope, bias)
    whole.forward()
    whole.tops[0].diff[...] = np.concatenate(top_diffs)
    whole.layer.backward(whole.tops, [True], whole.bottoms)

    runs = [set_up_layer(bn_layer(kind="SyncBN"), [batch], in_place=in_place) for batch in batches]
    for run in runs:
        fill(run, slope, bias)
    outputs = together(runs, lambda run: run.forward()[0])
    np.testing.assert_allclose(np.concatenate(outputs), whole.tops[0].data, rtol=1e-9)
    for run in runs:
        for blob, other in zip(run.layer.blobs, whole.layer.blobs, strict=True):
            np.testing.assert_allclose(blob.data, other.data, rtol=1e-9)
    for run, diff in zip(runs, top_diffs, strict=True):
        run.tops[0].diff[...] = diff
    together(runs, lambda run: run.layer.backward(run.tops, [True], run.bottoms))
    np.testing.assert_allclose(
        np.concatenate([run.bottoms[0].diff for run in runs]), whole.bottoms[0].diff, rtol=1e-9, atol=1e-12
    )
    for index in (0, 1):
        total = sum(run.layer.blobs[index].diff for run in runs)
        np.testing.assert_allclose(total, whole.layer.blobs[index].diff, rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "tops", "message"),
    [
        (bn_layer("scale_filler { value: 1 } momentum: 0.9"), 1, "mixes SegNet's scale_filler with yjxiong's momentum"),
        (bn_layer("bn_mode: INFERENCE"), 2, "more than one top"),
        (bn_layer(), 2, "more than one top"),
        (bn_layer("shift_filler { value: 1 }", "SyncBN"), 1, "SegNet's BN, which has no SyncBN"),
        (bn_layer("slope_filler { type: 'nonsense' }"), 1, "blob 0"),
    ],
)
def test_wrong_settings(text: str, tops: int, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        set_up_layer(text, [np.ones((2, 3))], top_count=tops)


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeMismatchError, match=r"needs \(N, C, ...\)"):
        set_up_layer(bn_layer(), [np.ones(3)])
    run = set_up_layer(bn_layer(), [np.ones((2, 3))])
    run.bottoms[0].reshape(2, 4)
    with pytest.raises(ShapeMismatchError, match=r"become \(2, 4\).*for 3 channels"):
        run.layer.reshape(run.bottoms, run.tops)
