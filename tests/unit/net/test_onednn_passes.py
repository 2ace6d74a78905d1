"""Nets on oneDNN: layers computed together, blobs in any layout, and arrays that show what they should."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends import create_backend
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from tests.optional import need_onednn

TEXT = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 4 dim: 3 dim: 12 dim: 12 } shape { dim: 4 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 32 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.25 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 5 alpha: 0.1 } }
layer { name: "conv2a" type: "Convolution" bottom: "norm1" top: "conv2a"
  convolution_param { num_output: 16 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "relu2a" type: "ReLU" bottom: "conv2a" top: "conv2a" }
layer { name: "conv2b" type: "Convolution" bottom: "norm1" top: "conv2b"
  convolution_param { num_output: 20 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu2b" type: "ReLU" bottom: "conv2b" top: "conv2b" }
layer { name: "concat" type: "Concat" bottom: "conv2a" bottom: "conv2b" top: "concat" }
layer { name: "flat" type: "Flatten" bottom: "concat" top: "flat" }
layer { name: "ip1" type: "InnerProduct" bottom: "flat" top: "ip1"
  inner_product_param { num_output: 24 weight_filler { type: "xavier" } } }
layer { name: "relu3" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _onednn() -> None:
    need_onednn()


def build(backend: str = "onednn", dtype: npt.DTypeLike = np.float32, keeps_arrays: bool = False) -> Net:
    context = LayerContext(create_backend(backend), TRAIN, dtype=dtype, seed=2, keeps_arrays=keeps_arrays)
    net = Net(parse_prototxt(TEXT, NetParameter), context)
    random = np.random.default_rng(5)
    net.blobs["data"].data[...] = random.normal(size=net.blobs["data"].shape).astype(np.float32)
    net.blobs["label"].data[...] = random.integers(0, 5, 4)
    return net


def step(net: Net) -> float:
    net.clear_param_diffs()
    loss = net.forward_from_to()
    net.backward_from_to()
    return loss


def test_every_blob_and_gradient_agrees_with_doubles_of_numpy() -> None:
    reference, net = build("numpy", np.float64), build()
    reference.parameters.data.mutable_host()[...] = net.parameters.data.host()
    assert step(net) == pytest.approx(step(reference), rel=1e-5)
    np.testing.assert_allclose(net.parameters.diff.host(), reference.parameters.diff.host(), rtol=1e-4, atol=1e-5)
    for name, blob in net.blobs.items():
        for half in ("data", "diff"):
            expected = getattr(reference.blobs[name], half)
            np.testing.assert_allclose(getattr(blob, half), expected, rtol=1e-4, atol=1e-5, err_msg=f"{name} {half}")


def test_layers_are_computed_together_only_where_nobody_can_tell() -> None:
    net = build()
    whole = {name: blob.data.copy() for name, blob in net.blobs.items() if net.forward() is not None}
    names = net.layer_names
    relus = {name: net.layer_dict[name] for name in names if name.startswith("relu")}
    net.forward(end="conv1")
    assert (net.blobs["conv1"].data < -0.1).any(), "the blob as it is before the ReLU"
    unrectified = net.blobs["conv1"].data.copy()
    net.forward(start="relu1", end="relu1")
    np.testing.assert_allclose(net.blobs["conv1"].data, whole["conv1"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.where(unrectified > 0, 1, 0.25) * unrectified, whole["conv1"], rtol=1e-5, atol=1e-6)
    net.forward(start="pool1")
    np.testing.assert_allclose(net.blobs["loss"].data, whole["loss"], rtol=1e-5)

    net.forward()
    assert all(producer.applies_relu for producer in (net.layer_dict[n] for n in ("conv1", "conv2a", "ip1")))  # type: ignore[attr-defined]
    assert not any(relu.is_applied for relu in relus.values())  # type: ignore[attr-defined]
    net.debug_info = True
    net.forward()
    assert not net.layer_dict["conv1"].applies_relu  # type: ignore[attr-defined]
    np.testing.assert_allclose(net.blobs["loss"].data, whole["loss"], rtol=1e-5)


def test_what_is_written_into_a_blob_is_what_the_next_layer_reads() -> None:
    net = build()
    net.forward()
    loss = float(net.blobs["loss"].data)
    net.blobs["pool1"].data[...] = 0
    net.forward(start="norm1")
    assert float(net.blobs["loss"].data) != pytest.approx(loss)
    other = build()
    other.forward()
    other.blobs["concat"].data[...] = net.blobs["concat"].data
    other.forward(start="flat")
    np.testing.assert_allclose(other.blobs["loss"].data, net.blobs["loss"].data, rtol=1e-5)
    net.blobs["conv1"].diff[...] = 0
    net.clear_param_diffs()
    net.backward(start="conv1")
    assert not net.params["conv1"][0].diff.any()


def test_arrays_that_a_script_holds_follow_the_net() -> None:
    net, fresh = build(keeps_arrays=True), build()
    held = {name: (blob.data, blob.diff) for name, blob in net.blobs.items()}
    for shift in (0.0, 0.5):
        held["data"][0][...] += shift
        fresh.blobs["data"].data[...] = held["data"][0]
        assert step(net) == pytest.approx(step(fresh), rel=1e-6)
        for name, (data, diff) in held.items():
            np.testing.assert_allclose(data, fresh.blobs[name].data, rtol=1e-5, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(diff, fresh.blobs[name].diff, rtol=1e-5, atol=1e-6, err_msg=name)
    held["norm1"][0][...] = 0
    net.forward(start="conv2a")
    assert not np.allclose(net.blobs["concat"].data, fresh.blobs["concat"].data)


def test_two_runs_give_the_same_bits() -> None:
    nets = [build(), build()]
    for net in nets:
        step(net)
        step(net)
    first, second = (net.parameters.diff.host() for net in nets)
    assert np.array_equal(first, second)
    assert first.any()


def test_nets_in_several_threads_do_not_disturb_each_other() -> None:
    expected = build()
    step(expected)
    wrong: list[int] = []

    def work(number: int) -> None:
        net = build()  # built and run in different threads, too
        for _ in range(20):
            step(net)
            if not np.array_equal(net.parameters.diff.host(), expected.parameters.diff.host()):
                wrong.append(number)

    moved = build()

    def run_moved() -> None:
        for _ in range(20):
            step(moved)
            if not np.array_equal(moved.parameters.diff.host(), expected.parameters.diff.host()):
                wrong.append(-1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)] + [
        threading.Thread(target=run_moved)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
