"""What scripts have called around layers, and around the gradients of a solver."""

from __future__ import annotations

import numpy as np
import pytest

import paratrain as caffe

pytestmark = pytest.mark.usefixtures("folder")


def test_each_layer_is_told_before_and_after(backend: str) -> None:
    net = caffe.Net("convolutions.prototxt", caffe.TRAIN)
    seen: list[tuple[str, int]] = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name)(lambda layer, name=name: seen.append((name, layer)))
    last = len(net.layers) - 1
    net.forward()
    assert seen == [(name, layer) for layer in range(last + 1) for name in ("before_forward", "after_forward")]
    seen.clear()
    net.backward()
    assert seen == [(name, layer) for layer in range(last, -1, -1) for name in ("before_backward", "after_backward")]
    seen.clear()
    net.forward(start="conv2", end="bn2")
    assert [layer for name, layer in seen if name == "after_forward"] == [4, 5]
    assert backend


def test_a_layer_in_place_is_seen_between_others(backend: str) -> None:
    """oneDNN computes convolution and ReLU at once, but not while somebody looks in between."""
    net = caffe.Net("convolutions.prototxt", caffe.TRAIN)
    x = np.random.default_rng(0).normal(size=(2, 1, 8, 8))
    plain = net.forward(["conv1", "conv2"], data=x)
    expected = {name: values.copy() for name, values in plain.items()}
    held = net.blobs["conv1"].data
    seen = {}

    def look(layer: int) -> None:
        name = net._layer_names[layer]
        if name in ("conv1", "relu1"):
            seen[name] = net.blobs["conv1"].data.copy()
            np.testing.assert_array_equal(held, seen[name])

    net.after_forward(look)
    out = net.forward(["conv1", "conv2"], data=x)
    assert (seen["conv1"] < 0).any()
    np.testing.assert_array_equal(seen["relu1"], np.maximum(seen["conv1"], 0))
    for name, values in out.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
    assert backend


def test_what_a_callback_writes_counts(backend: str) -> None:
    net = caffe.Net("convolutions.prototxt", caffe.TRAIN)
    x = np.random.default_rng(1).normal(size=(2, 1, 8, 8))

    def silence(layer: int) -> None:
        if net._layer_names[layer] == "pool1":
            net.blobs["pool1"].data[:, 1:] = 0

    net.after_forward(silence)
    net.forward(data=x)
    weights = net.params["conv2"][0].data
    assert not net.blobs["pool1"].data[:, 1:].any()
    net.clear_param_diffs()
    net.backward(ip=np.ones((2, 2)))
    assert not net.params["conv2"][0].diff[:, 1:].any()
    assert net.params["conv2"][0].diff[:, 0].any()
    assert weights[:, 1:].any()

    def cut(layer: int) -> None:
        if net._layer_names[layer] == "conv2":
            net.blobs["pool1"].diff[...] = 0

    net.after_backward(cut)
    assert not net.backward(ip=np.ones((2, 2)))["data"].any()
    assert backend


def test_callbacks_are_called_around_the_gradient() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    solver.net.blobs["data"].data[...] = np.arange(12).reshape(4, 3) / 10
    solver.net.blobs["label"].data[...] = [0, 1, 0, 1]
    seen = []
    weights = solver.net.params["ip"][0]
    solver.add_callback(
        lambda: seen.append(("start", bool(weights.diff.any()), weights.data.copy())),
        lambda: seen.append(("ready", bool(weights.diff.any()), weights.data.copy())),
    )
    solver.step(2)
    assert [(name, has_gradient) for name, has_gradient, _ in seen] == [("start", False), ("ready", True)] * 2
    np.testing.assert_array_equal(seen[0][2], seen[1][2])
    assert (seen[2][2] != seen[0][2]).any()


def test_an_exception_in_a_callback_comes_through() -> None:
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.before_forward(lambda layer: 1 / (layer - 2))
    with pytest.raises(ZeroDivisionError):
        net.forward()
