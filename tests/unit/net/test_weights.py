"""Weights in and out of nets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paratrain.errors import NetError, ShapeMismatchError, SnapshotError
from paratrain.net import Net
from paratrain.proto import TEST, NetParameter, array_to_blob, caffe_pb2, read_binary, write_binary
from paratrain.snapshot import load_weights
from tests.unit.net.build import DATA, build, inner_product


def test_saved_weights_come_back(tmp_path: Path) -> None:
    source = build(DATA, inner_product("a", "data", "a"), inner_product("b", "a", "b", 2), seed=1)
    target = build(DATA, inner_product("a", "data", "a"), inner_product("b", "a", "b", 2), seed=2)
    assert (source.params["a"][0].data != target.params["a"][0].data).any()
    source.save(str(tmp_path / "w.caffemodel"))
    target.copy_from(str(tmp_path / "w.caffemodel"))
    np.testing.assert_array_equal(source.parameters.data.host(), target.parameters.data.host())
    saved = read_binary(tmp_path / "w.caffemodel", NetParameter)
    assert [layer.name for layer in saved.layer] == ["data", "a", "b"]


def test_layers_are_matched_by_name_and_others_left_alone() -> None:
    source = build(DATA, inner_product("a", "data", "a"), inner_product("other", "a", "b", 2), seed=1)
    target = build(DATA, inner_product("a", "data", "a"), inner_product("b", "a", "b", 2), seed=2)
    before = target.params["b"][0].data.copy()
    target.copy_trained_layers_from(source.to_proto())
    np.testing.assert_array_equal(target.params["a"][0].data, source.params["a"][0].data)
    np.testing.assert_array_equal(target.params["b"][0].data, before)


def test_weights_of_another_shape_are_refused_before_anything_is_copied() -> None:
    source = build(DATA, inner_product("a", "data", "a"), inner_product("b", "a", "b", 5), seed=1)
    target = build(DATA, inner_product("a", "data", "a"), inner_product("b", "a", "b", 2), seed=2)
    before = target.parameters.data.host().copy()
    with pytest.raises(
        ShapeMismatchError, match=r"layer 'b' \(InnerProduct\): parameter 0 has shape \(2, 4\) in the net and \(5, 4\)"
    ):
        target.copy_trained_layers_from(source.to_proto())
    np.testing.assert_array_equal(target.parameters.data.host(), before)


def test_another_number_of_blobs_is_refused() -> None:
    saved = build(DATA, inner_product("a", "data", "a")).to_proto()
    del saved.layer[1].blobs[1]
    with pytest.raises(SnapshotError, match="has 2 parameter blobs; the weights hold 1"):
        build(DATA, inner_product("a", "data", "a")).copy_trained_layers_from(saved)


def test_blobs_with_four_legacy_axes_fit() -> None:
    net = build(DATA, inner_product("a", "data", "a"))
    saved = net.to_proto()
    for blob, (height, width) in zip(saved.layer[1].blobs, [(4, 3), (1, 4)], strict=True):
        blob.ClearField("shape")
        blob.num, blob.channels, blob.height, blob.width = 1, 1, height, width
    expected = net.parameters.data.host().copy()
    net.parameters.data.mutable_host()[...] = 0
    net.copy_trained_layers_from(saved)
    np.testing.assert_array_equal(net.parameters.data.host(), expected)


def test_a_test_net_shares_the_memory_of_the_training_net() -> None:
    train = build(DATA, inner_product("a", "data", "a"), seed=1)
    test = build(DATA, inner_product("a", "data", "a"), phase=TEST, seed=2)
    test.share_with(train)
    train.params["a"][0].data[...] = 7
    np.testing.assert_array_equal(test.params["a"][0].data, 7)


def test_gradients_are_saved_when_asked() -> None:
    net = build(DATA, inner_product("a", "data", "a"))
    net.params["a"][0].diff[...] = 3
    assert not net.to_proto().layer[1].blobs[0].diff
    np.testing.assert_array_equal(list(net.to_proto(write_diff=True).layer[1].blobs[0].diff), 3)


def test_arrays_go_in_and_come_out_by_name() -> None:
    net = build(DATA, inner_product("a", "data", "a"), inner_product("b", "a", "b", 2))
    out = net.forward(blobs=["a"], data=np.ones((2, 3)))
    assert sorted(out) == ["a", "b"]
    expected = np.ones((2, 3)) @ net.params["a"][0].data.T + net.params["a"][1].data
    np.testing.assert_allclose(out["a"], expected, rtol=1e-6)
    assert list(net.forward(end="a")) == ["a"]
    with pytest.raises(
        ShapeMismatchError, match=r"blob 'data' has shape \(2, 3\); the array given for its data has \(5, 3\)"
    ):
        net.forward(data=np.ones((5, 3)))
    with pytest.raises(NetError, match="no layer 'nobody'"):
        net.forward(start="nobody")


def test_a_net_follows_its_inputs_to_another_size() -> None:
    net = build(DATA, inner_product("a", "data", "a"))
    net.blobs["data"].reshape(5, 3)
    net.reshape()
    assert net.blobs["a"].shape == (5, 4)
    net.blobs["data"].reshape(1, 3)
    assert net.forward(data=np.ones((1, 3)))["a"].shape == (1, 4)


def _net_and_weights() -> tuple[Net, list[np.ndarray]]:
    net = build(DATA, inner_product("a", "data", "a"))
    return net, [np.arange(12, dtype=np.float32).reshape(4, 3), np.arange(4, dtype=np.float32)]


@pytest.mark.parametrize(
    ("raw_type", "dtype"), [("FLOAT", "<f4"), ("FLOAT16", "<f2"), ("DOUBLE", "<f8")], ids=["float", "half", "double"]
)
def test_raw_blobs_of_nvcaffe_load(raw_type: str, dtype: str, tmp_path: Path) -> None:
    net, weights = _net_and_weights()
    saved = NetParameter(layer=[{"name": "a", "type": "InnerProduct"}])
    for values in weights:
        blob = saved.layer[0].blobs.add(raw_data=values.astype(dtype).tobytes())
        blob.raw_data_type = caffe_pb2.Type.Value(raw_type)
        blob.shape.dim.extend(values.shape)
    write_binary(tmp_path / "w.caffemodel", saved)
    net.copy_from(str(tmp_path / "w.caffemodel"))
    for blob, values in zip(net.params["a"], weights, strict=True):
        np.testing.assert_array_equal(blob.data, values)


@pytest.mark.parametrize("form", ["V1", "V0"])
@pytest.mark.parametrize("load", ["copy_from", "load_weights", "copy_trained_layers_from"])
def test_weights_in_old_files_load_with_their_four_axes(form: str, load: str, tmp_path: Path) -> None:
    net, weights = _net_and_weights()
    saved = NetParameter()
    if form == "V1":
        target = saved.layers.add(name="a", type=caffe_pb2.V1LayerParameter.INNER_PRODUCT)
    else:
        target = saved.layers.add().layer
        target.name, target.type = "a", "innerproduct"
    for values in weights:
        blob = array_to_blob(values, target.blobs.add())
        blob.ClearField("shape")
        blob.num, blob.channels = 1, 1
        blob.height, blob.width = (1, *values.shape)[-2:]
    write_binary(tmp_path / "w.caffemodel", saved)
    if load == "copy_from":
        net.copy_from(str(tmp_path / "w.caffemodel"))
    elif load == "load_weights":
        load_weights(net, tmp_path / "w.caffemodel")
    else:
        net.copy_trained_layers_from(saved)
    for blob, values in zip(net.params["a"], weights, strict=True):
        np.testing.assert_array_equal(blob.data, values)
