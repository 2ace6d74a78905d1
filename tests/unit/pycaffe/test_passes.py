"""forward and backward: what goes in, what comes out, where they begin and end."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import paratrain as caffe
from paratrain.errors import DataError, NetError, ShapeMismatchError

pytestmark = pytest.mark.usefixtures("folder")

X = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
LABEL = np.array([0, 1, 0, 1], np.float32)


def small() -> caffe.Net:
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["ip"][0].data[...] = [[1, 0, 0], [0, 1, 0]]
    net.params["ip"][1].data[...] = 0
    return net


def test_blobs_and_parameters_are_arrays_that_alias() -> None:
    net = small()
    net.blobs["data"].data[...] = X
    net.blobs["label"].data[...] = LABEL
    out = net.forward()
    assert sorted(out) == ["accuracy", "loss"]
    np.testing.assert_allclose(net.blobs["ip"].data, X[:, :2])
    assert float(out["accuracy"]) == 0.5
    assert np.shares_memory(out["loss"], net.blobs["loss"].data)


def test_inputs_by_name_and_more_blobs() -> None:
    out = small().forward(["ip", "data"], data=X, label=LABEL)
    assert sorted(out) == ["accuracy", "data", "ip", "loss"]
    np.testing.assert_allclose(out["ip"], X[:, :2])


def test_a_pass_over_some_layers() -> None:
    net = small()
    out = net.forward(end="ip", data=X, label=LABEL)
    assert sorted(out) == ["ip"]
    np.testing.assert_allclose(out["ip"], X[:, :2])
    assert float(net.blobs["loss"].data) == 0
    net.blobs["ip"].data[...] = [[0, 0]] * 4
    out = net.forward(start="ip_ip_0_split", blobs=["ip"])
    assert float(out["loss"]) == pytest.approx(np.log(2))
    out = net.forward(start="ip_ip_0_split", end="ip_ip_0_split", ip=X[:, :2])
    assert sorted(out) == ["ip_ip_0_split_0", "ip_ip_0_split_1"]
    np.testing.assert_allclose(out["ip_ip_0_split_1"], X[:, :2])


def test_a_loss_without_a_top(folder: Path) -> None:
    text = (folder / "net.prototxt").read_text().replace(' top: "loss"', "")
    (folder / "silent.prototxt").write_text(text)
    net = caffe.Net("silent.prototxt", caffe.TRAIN)
    [(name, value)] = net.forward(end="loss", data=X, label=LABEL).items()
    assert name == "(automatic)"
    assert float(value) > 0


def test_passes_by_number() -> None:
    net = small()
    net.blobs["data"].data[...] = X
    net.blobs["label"].data[...] = LABEL
    last = len(net.layers) - 1
    loss = net._forward(0, last)
    assert loss == pytest.approx(float(net.blobs["loss"].data))
    net._backward(last, 0)
    assert net.params["ip"][0].diff.any()
    for call in (lambda: net._forward(0, last + 1), lambda: net._backward(-1, 0)):
        with pytest.raises(NetError, match="there is no layer number"):
            call()


@pytest.mark.parametrize(
    ("shape", "given"), [((4, 3), (4, 1)), ((4, 3), (4, 3)), ((1, 1, 5, 5), (1, 5, 5)), ((), (1,)), ((1,), ())]
)
def test_arrays_that_numpy_fits_to_a_blob(folder: Path, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
    dims = " ".join(f"dim: {axis}" for axis in shape)
    (folder / "one.prototxt").write_text(
        f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}'
    )
    net = caffe.Net("one.prototxt", caffe.TEST)
    values = np.arange(int(np.prod(given)), dtype=np.float64).reshape(given)
    np.testing.assert_array_equal(net.forward(x=values)["x"], np.broadcast_to(values.reshape(values.shape), shape)
                                  if shape and given else values.reshape(shape))  # fmt: skip


@pytest.mark.parametrize("given", [(3, 3), (4, 2), (4, 3, 1), (1, 3), (5, 3), (3,)])
def test_arrays_of_wrong_shapes(given: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatchError, match=r"blob 'data' has shape \(4, 3\)"):
        small().forward(data=np.zeros(given), label=LABEL)


def test_wrong_names_are_told_with_the_nearest() -> None:
    net = small()
    cases = [
        (lambda: net.forward(dta=X, label=LABEL), r"no blob 'dta'; did you mean 'data'"),
        (lambda: net.forward(["los"]), r"no blob 'los'; did you mean 'loss'"),
        (lambda: net.forward(end="accuracies"), r"no layer 'accuracies'; did you mean 'accuracy'"),
        (lambda: net.forward(start="ip_ip_0_split_0"), r"it is a blob, and start and end name layers"),
        (lambda: net.forward(start="loss", end="ip"), r"layer 'ip' comes before 'loss'"),
        (lambda: net.forward(data=X), r"'label' missing: give arrays for all inputs"),
        (lambda: net.forward(data=X, label=LABEL, ip=X[:, :2]), r"'ip' is no input of the net"),
        (lambda: net.backward(los=1), r"no blob 'los'; did you mean 'loss'"),
        (lambda: net.backward(["dat"]), r"no blob 'dat'; did you mean 'data'"),
        (lambda: net.backward(start="ipp"), r"no layer 'ipp'; did you mean 'ip'"),
        (lambda: net.backward(start="ip", end="loss"), r"layer 'ip' comes before 'loss'"),
        (lambda: net.forward(end="qqqq"), r"no layer 'qqqq'; it has data, label"),
    ]
    for call, words in cases:
        with pytest.raises(NetError, match=words):
            call()
    with pytest.raises(TypeError, match=r"give a list of names, \['ip'\]"):
        net.forward(blobs="ip")
    with pytest.raises(KeyError):
        net.blobs["nothing"]


def test_backward_over_all_and_over_some(backend: str) -> None:
    net, rng = caffe.Net("convolutions.prototxt", caffe.TEST), np.random.default_rng(0)
    x = rng.normal(size=(2, 1, 8, 8))
    for blob in (blob for blobs in net.params.values() for blob in blobs):
        blob.data[...] = rng.normal(size=blob.shape)  # with some fillers' values no ReLU passes anything
    net.forward(data=x)
    assert sorted(net.backward(ip=np.ones((2, 2)))) == ["data"]
    whole = net.backward(["pool1"], ip=np.ones((2, 2)))
    expected, pooled = whole["data"].copy(), whole["pool1"].copy()
    assert expected.any()
    net.blobs["data"].diff[...] = 0
    part = net.backward(end="conv2", ip=np.ones((2, 2)))
    assert sorted(part) == ["pool1"]
    np.testing.assert_array_equal(part["pool1"], pooled)
    assert not net.blobs["data"].diff.any()
    rest = net.backward(start="pool1", pool1=pooled)
    np.testing.assert_allclose(rest["data"], expected, rtol=1e-5, atol=1e-7)
    net.blobs["pool1"].diff[...] = 2 * pooled
    np.testing.assert_allclose(net.backward(start="pool1")["data"], 2 * expected, rtol=1e-5, atol=1e-7)
    assert backend


def test_parameter_gradients_add_up_until_they_are_cleared(backend: str) -> None:
    net = caffe.Net("convolutions.prototxt", caffe.TRAIN)
    net.forward(data=np.random.default_rng(1).normal(size=(2, 1, 8, 8)))
    gradient = net.params["conv1"][0].diff
    net.backward(ip=[[1, -1], [2, 0]])
    once = gradient.copy()
    net.backward(ip=[[1, -1], [2, 0]])
    np.testing.assert_allclose(gradient, 2 * once, rtol=1e-5, atol=1e-6)
    net.clear_param_diffs()
    assert not any(blob.diff.any() for blobs in net.params.values() for blob in blobs)
    assert not gradient.any()
    assert once.any()
    assert backend


def test_every_blob_keeps_its_value_after_forward(backend: str) -> None:
    net = caffe.Net("convolutions.prototxt", caffe.TRAIN)
    net.forward(data=np.random.default_rng(2).normal(size=(2, 1, 8, 8)))
    before = {name: blob.data.copy() for name, blob in net.blobs.items()}
    net.backward(ip=np.ones((2, 2)))
    for name, blob in net.blobs.items():
        np.testing.assert_array_equal(blob.data, before[name])
        assert before[name].any()
    assert backend


@pytest.mark.parametrize("count", [1, 4, 8, 11])
def test_any_number_of_samples(count: int) -> None:
    net = small()
    rng = np.random.default_rng(count)
    x, label = rng.normal(size=(count, 3)), rng.integers(0, 2, count)
    out = net.forward_all(blobs=["ip"], data=x, label=label)
    np.testing.assert_allclose(out["ip"], x[:, :2], rtol=1e-6)
    assert out["loss"].shape == (-(-count // 4),)  # one for each batch
    first = np.zeros((4, 2))
    first[: min(count, 4)] = x[:4, :2]
    labels = np.zeros(4, int)
    labels[: min(count, 4)] = label[:4]
    chances = np.exp(first) / np.exp(first).sum(axis=1, keepdims=True)
    assert out["loss"][0] == pytest.approx(-np.log(chances[range(4), labels]).mean(), rel=1e-5)


def test_any_number_of_samples_forward_and_backward() -> None:
    net = caffe.Net("convolutions.prototxt", caffe.TEST)  # its BatchNorm uses no statistics of the batch
    net.params["bn2"][2].data[...] = 1
    net.params["bn2"][1].data[...] = 1
    rng = np.random.default_rng(3)
    x, gradient = rng.normal(size=(5, 1, 8, 8)), rng.normal(size=(5, 2))
    blobs, diffs = net.forward_backward_all(blobs=["pool1"], diffs=["conv2"], data=x, ip=gradient)
    assert {name: values.shape for name, values in blobs.items()} == {"ip": (5, 2), "pool1": (5, 4, 3, 3)}
    assert {name: values.shape for name, values in diffs.items()} == {"data": (5, 1, 8, 8), "conv2": (5, 3, 3, 3)}
    for index in range(5):
        net.forward(data=np.repeat(x[index : index + 1], 2, axis=0))
        np.testing.assert_allclose(blobs["ip"][index], net.blobs["ip"].data[0], rtol=1e-5, atol=1e-6)
        net.backward(ip=np.repeat(gradient[index : index + 1], 2, axis=0))
        np.testing.assert_allclose(diffs["data"][index], net.blobs["data"].diff[0], rtol=1e-5, atol=1e-6)


def test_samples_that_do_not_fit() -> None:
    net = small()
    with pytest.raises(ShapeMismatchError, match="5 for 'data', 4 for 'label'"):
        net.forward_all(data=np.zeros((5, 3)), label=LABEL)
    with pytest.raises(NetError, match="there are no samples"):
        net.forward_all()
    with pytest.raises(NetError, match="there are no samples"):
        net.forward_all(data=np.zeros((0, 3)), label=[])
    with pytest.raises(NetError, match="'dat' is neither an input nor an output of the net; did you mean 'data'"):
        net.forward_backward_all(dat=X, label=LABEL)


def test_arrays_are_given_to_a_memory_data_layer(folder: Path) -> None:
    (folder / "memory.prototxt").write_text(
        'layer { name: "data" type: "MemoryData" top: "data" top: "label" '
        "memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } }"
    )
    net = caffe.Net("memory.prototxt", caffe.TEST)
    samples, labels = np.arange(24, dtype=np.float32).reshape(4, 1, 2, 3), np.arange(4, dtype=np.float32)
    with pytest.raises(DataError, match=r"give them by net.set_input_arrays\(data, labels\) first"):
        net.forward()
    net.set_input_arrays(samples, labels)
    for start in (0, 2, 0):
        out = net.forward()
        np.testing.assert_array_equal(out["data"], samples[start : start + 2])
        np.testing.assert_array_equal(out["label"], labels[start : start + 2])
    net._set_input_arrays(samples[2:], labels[2:].reshape(2, 1, 1, 1))
    np.testing.assert_array_equal(net.forward()["label"], labels[2:])
    for wrong_samples, wrong_labels, words in (
        (samples[:3], labels[:3], "no multiple of batch_size"),
        (samples, labels[:3], "a label for each of 4 samples"),
        (samples.reshape(4, 6), labels, r"expected data of the shape \(n, 1, 2, 3\)"),
        (samples.reshape(4, 1, 3, 2), labels, r"expected data of the shape"),
    ):
        with pytest.raises(DataError, match=words):
            net.set_input_arrays(wrong_samples, wrong_labels)
    with pytest.raises(NetError, match="this net has none"):
        caffe.Net("net.prototxt", caffe.TEST).set_input_arrays(samples, labels)


def test_shapes_that_change_at_every_pass_take_no_more_memory(backend: str) -> None:
    net = caffe.Net("convolutions.prototxt", caffe.TEST)
    sides = (40, 64)
    held = []
    for index in range(200):
        net.blobs["data"].reshape(4, 1, sides[index % 2], 64)
        net.blobs["data"].data[...] = index
        net.forward(end="relu2")
        net.blobs["conv2"].diff[...] = 1
        net.backward(start="relu2")
        if index in (40, 199):
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    # What the passes between keep, if each kept one blob of conv1, is three times this.
    assert held[1] - held[0] < 8 << 20
