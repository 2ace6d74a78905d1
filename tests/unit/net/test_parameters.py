"""The flat arrays of parameters, and parameters shared between layers."""

from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import NetError, ShapeMismatchError
from paratrain.net import Net
from paratrain.proto import TEST
from tests.unit.net.build import DATA, LABEL, build, inner_product

LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "%s" bottom: "%s" top: "loss" }'


def shared(extra_b: str = 'param { name: "w" }', count: int = 3, twin: str = "") -> Net:
    return build(
        DATA,
        inner_product("a", "data", "a", 3, 'param { name: "w" lr_mult: 2 } param { name: "bias" }' + twin),
        inner_product("b", "a", "b", count, extra_b),
        LOSS % ("b", "data"),
        dtype=np.float64,
    )


def test_blobs_are_views_of_the_flat_arrays_in_the_order_of_the_net() -> None:
    net = build(DATA, inner_product("a", "data", "a"), inner_product("b", "a", "b", 2))
    places = [(entry.label, entry.start, entry.stop) for entry in net.parameters.entries]
    assert places == [("a[0]", 0, 12), ("a[1]", 12, 16), ("b[0]", 16, 24), ("b[1]", 24, 26)]
    net.parameters.data.mutable_host()[...] = np.arange(26)
    np.testing.assert_array_equal(net.params["b"][0].data, np.arange(16, 24).reshape(2, 4))
    net.params["a"][1].diff[...] = 5
    np.testing.assert_array_equal(net.parameters.diff.host()[12:16], 5)


def test_moving_into_the_flat_arrays_keeps_what_the_fillers_wrote() -> None:
    train, test = (build(DATA, inner_product("a", "data", "a"), phase=phase) for phase in (0, TEST))
    np.testing.assert_array_equal(train.params["a"][0].data, test.params["a"][0].data)
    assert train.params["a"][0].data.any()


def test_statistics_are_kept_apart_but_counted_as_caffe_does() -> None:
    batch_norm = 'layer { name: "bn" type: "BatchNorm" bottom: "a" top: "a" }'
    net = build(DATA, inner_product("a", "data", "a"), batch_norm, inner_product("b", "a", "b", 2))
    assert [entry.label for entry in net.parameters.entries] == [
        "a[0]", "a[1]", "bn[0]", "bn[1]", "bn[2]", "b[0]", "b[1]",
    ]  # fmt: skip
    assert net.parameters.count == net.parameters.data.count == 12 + 4 + 8 + 2
    assert net.parameters.statistics.count == 4 + 4 + 1


def test_gradients_of_all_users_are_summed() -> None:
    net = shared()
    assert [entry.label for entry in net.parameters.entries] == ["a[0]", "a[1]", "b[1]"]
    net.forward(data=[[1, -2, 3], [0.5, 1, -1]])
    net.clear_param_diffs()
    net.backward()
    weights, analytic = net.params["a"][0].data, net.params["a"][0].diff.copy()
    assert np.shares_memory(weights, net.params["b"][0].data)
    direction = np.random.default_rng(0).normal(size=weights.shape)
    step = 1e-6
    weights += step * direction
    above = float(net.forward()["loss"])
    weights -= 2 * step * direction
    below = float(net.forward()["loss"])
    assert (above - below) / (2 * step) == pytest.approx(float((analytic * direction).sum()), rel=1e-6)


def test_sharing_needs_equal_shapes_or_permissive_and_equal_counts() -> None:
    with pytest.raises(ShapeMismatchError, match=r"layer 'b'.*parameter 'w' has shape \(5, 3\) here and \(3, 3\)"):
        shared(count=5)
    with pytest.raises(ShapeMismatchError, match="share_mode: PERMISSIVE asks only for equal counts"):
        shared('param { name: "bias" }')
    with pytest.raises(
        ShapeMismatchError, match=r"'bias' has shape \(3, 3\) here and \(3,\) in layer 'a', which it is shared with$"
    ):
        shared('param { name: "bias" share_mode: PERMISSIVE }')
    permissive = inner_product("b", "a9", "b", 3, 'param { name: "w" share_mode: PERMISSIVE }')
    net = build(DATA, inner_product("a", "data", "a9", 9, 'param { name: "w" }'), permissive)
    assert np.shares_memory(net.params["a"][0].data, net.params["b"][0].data)
    assert net.params["b"][0].shape == (3, 9)


def test_users_must_agree_on_the_multipliers() -> None:
    with pytest.raises(NetError, match="parameter 'w': lr_mult is 3 in layer 'b' and 2 in layer 'a'"):
        shared('param { name: "w" lr_mult: 3 }')
    assert shared('param { name: "w" decay_mult: 0 }').parameters.entries[0].decay_mult == 0


def test_clearing_zeroes_all_gradients() -> None:
    net = build(DATA, LABEL, inner_product("a", "data", "a"))
    net.params["a"][0].diff[...] = 1
    net.clear_param_diffs()
    assert not net.params["a"][0].diff.any()
