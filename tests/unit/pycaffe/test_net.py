"""A net as scripts make it: its forms, its names, and weights in and out."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import paratrain as caffe
from paratrain import pycaffe
from paratrain.errors import NetError, ParatrainError, PrototxtError, ShapeMismatchError, SnapshotError

pytestmark = pytest.mark.usefixtures("folder")


def test_a_net_of_each_form(folder: Path) -> None:
    train = caffe.Net("net.prototxt", caffe.TRAIN)
    assert "accuracy" not in train.blobs
    assert "accuracy" in caffe.Net("net.prototxt", caffe.TEST).blobs
    train.save("w.caffemodel")
    for net in (
        caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel"),
        caffe.Net("net.prototxt", "w.caffemodel", caffe.TEST),
        caffe.Net("net.prototxt", caffe.TEST, 0, ["deep"], "w.caffemodel"),
        caffe.Net(network_file="net.prototxt", phase=caffe.TEST, weights="w.caffemodel"),
        caffe.Net(folder / "net.prototxt", phase=caffe.TEST, weights=folder / "w.caffemodel"),
    ):
        assert net.phase == caffe.TEST
        np.testing.assert_array_equal(net.params["ip"][0].data, train.params["ip"][0].data)


def test_levels_and_stages() -> None:
    def layers(*args: object, **more: object) -> set[str]:
        return set(caffe.Net("net.prototxt", *args, **more)._layer_names) & {"relu", "level"}

    assert layers(caffe.TRAIN) == set()
    assert layers(caffe.TRAIN, 2) == {"level"}
    assert layers(caffe.TRAIN, stages=["deep"]) == {"relu"}
    assert layers(caffe.TRAIN, level=3, stages=("deep", "other")) == {"relu", "level"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((), TypeError, "phase is missing"),
        ((7,), ValueError, "there is no phase 7"),
        (("w.caffemodel",), TypeError, "phase is missing"),
        (("w.caffemodel", "TEST"), TypeError, "cannot use 'TEST' as phase"),
        ((0, 0, "deep"), TypeError, "give a list of names"),
        ((0, "w.caffemodel"), TypeError, "as level"),
        ((0, 0, None, None, 1), TypeError, "6 arguments"),
        ((0, 0, None, 3), TypeError, "cannot use 3 as weights"),
    ],
)
def test_a_form_that_does_not_exist(arguments: tuple[object, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        caffe.Net("net.prototxt", *arguments)


def test_an_argument_that_is_given_twice() -> None:
    with pytest.raises(TypeError, match="phase is given twice, 0 and 1"):
        caffe.Net("net.prototxt", caffe.TRAIN, phase=caffe.TEST)


def test_missing_and_wrong_files_say_so(folder: Path) -> None:
    with pytest.raises(PrototxtError, match=r"nowhere.prototxt.*"):
        caffe.Net("nowhere.prototxt", caffe.TEST)
    with pytest.raises(SnapshotError, match=r"nowhere.caffemodel: no such file"):
        caffe.Net("net.prototxt", caffe.TEST, weights="nowhere.caffemodel")
    net = caffe.Net("net.prototxt", caffe.TEST)
    for load in (net.copy_from, net.load_hdf5):
        with pytest.raises(SnapshotError, match=r"nowhere"):
            load("nowhere")
    for save in (net.save, net.save_hdf5):
        with pytest.raises((ParatrainError, OSError), match=r"no/such/folder"):
            save("no/such/folder/w")
    (folder / "bad.prototxt").write_text('layer { name: "a" type: "Relu" bottom: "x" top: "y" }')
    with pytest.raises(NetError, match="'x'"):
        caffe.Net("bad.prototxt", caffe.TEST)
    (folder / "broken.prototxt").write_text('layer { nam: "a" }')
    with pytest.raises(PrototxtError, match=r"broken.prototxt:1.*nam"):
        caffe.Net("broken.prototxt", caffe.TEST)


def test_names_of_layers_and_blobs() -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    split = ["ip_ip_0_split_0", "ip_ip_0_split_1"]
    labels = ["label_label_0_split_0", "label_label_0_split_1"]
    assert list(net.blobs) == ["data", "label", *labels, "ip", *split, "accuracy", "loss"]
    assert net._layer_names == ["data", "label", "label_label_0_split", "ip", "ip_ip_0_split", "accuracy", "loss"]
    assert net.inputs == ["data", "label"]
    assert net.outputs == ["accuracy", "loss"]
    assert net.top_names["ip_ip_0_split"] == split
    assert net.bottom_names["loss"] == [split[1], labels[1]]
    assert net.bottom_names["data"] == []
    assert list(net.params) == ["ip"]
    assert [layer.type for layer in net.layers][-2:] == ["Accuracy", "SoftmaxWithLoss"]
    assert net.layer_dict["ip"] is net.layers[3]
    assert net.layer_dict["ip"].blobs[1].shape == (2,)
    assert net.blob_loss_weights["loss"] == 1
    assert sum(net.blob_loss_weights.values()) == 1
    for named in (net.blobs, net.params, net.layer_dict, net.top_names, net.bottom_names, net.blob_loss_weights):
        assert isinstance(named, OrderedDict)
        assert list(copy.copy(named)) == list(named.copy()) == list(named)
        assert "nothing" not in named
        assert named.get("nothing") is None


def test_a_name_that_is_not_there_is_a_key_error_with_the_nearest() -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    for named, what in ((net.blobs, "blob"), (net.top_names, "layer"), (net.layer_dict, "layer")):
        with pytest.raises(KeyError, match=f"the net has no {what} 'dat'; did you mean 'data'"):
            _ = named["dat"]
    with pytest.raises(KeyError, match="the net has no layer with parameters 'conv'; it has ip"):
        _ = net.params["conv"]
    with pytest.raises(KeyError, match="the net has no blob '3'"):
        _ = net.blobs[3]  # type: ignore[index]


def test_parameters_are_a_blob_vec() -> None:
    net = caffe.Net("convolutions.prototxt", caffe.TEST)
    assert {type(blobs) for blobs in net.params.values()} == {pycaffe.BlobVec}  # scripts ask so
    assert {type(layer.blobs) for layer in net.layers} == {pycaffe.BlobVec}


def test_numbers_of_blobs_as_pycaffe_has_them() -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    names = net._blob_names
    assert [names[index] for index in net._inputs] == net.inputs
    assert [names[index] for index in net._outputs] == net.outputs
    assert [names[index] for index in net._top_ids(4)] == net.top_names["ip_ip_0_split"]
    assert [names[index] for index in net._bottom_ids(6)] == net.bottom_names["loss"]
    assert net._blobs[names.index("ip")] is net.blobs["ip"]
    assert net._blob_loss_weights[names.index("loss")] == 1


def test_a_blob_has_legacy_axes() -> None:
    blob = caffe.Net("convolutions.prototxt", caffe.TEST).blobs["conv1"]
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 4, 6, 6) == tuple(blob.shape)
    assert blob.count == 2 * 4 * 6 * 6
    assert blob.data.shape == blob.diff.shape == blob.shape
    blob.reshape(1, 2)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (1, 2, 1, 1, 2)
    with pytest.raises(ShapeMismatchError, match="an axis is negative"):
        blob.reshape(-1, 2)
    with pytest.raises(TypeError, match=r"the axes one by one, as in reshape\(1, 3, 8, 8\); found \(\[1, 2\],\)"):
        blob.reshape([1, 2])


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights() -> np.ndarray:  # type: ignore[type-arg]
        return caffe.Net("net.prototxt", caffe.TRAIN).params["ip"][0].data.copy()

    assert (weights() != weights()).any()
    caffe.set_random_seed(5)
    first, second = weights(), weights()
    caffe.set_random_seed(6)
    np.testing.assert_array_equal(first, second)
    assert (first != weights()).any()
    caffe.set_random_seed(-1)
    assert (weights() != weights()).any()


def test_blobs_outlive_their_net() -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    weights = net.params["ip"][0].data.copy()
    blobs = [blob for blobs in net.params.values() for blob in blobs]
    arrays = [blob.data for blob in blobs]
    del net
    np.testing.assert_array_equal(blobs[0].data, weights)
    np.testing.assert_array_equal(arrays[0], weights)


def test_weights_go_out_and_come_back(folder: Path) -> None:
    pytest.importorskip("h5py")
    net, other = caffe.Net("net.prototxt", caffe.TRAIN), caffe.Net("net.prototxt", caffe.TRAIN)
    net.params["ip"][0].diff[...] = 3
    net.save(str(folder / "w.caffemodel"))
    net.save_hdf5("w.h5", True)
    for load, file in ((other.copy_from, "w.caffemodel"), (other.copy_from, "w.h5"), (other.load_hdf5, "w.h5")):
        other.params["ip"][0].data[...] = 0
        load(file)
        np.testing.assert_array_equal(other.params["ip"][0].data, net.params["ip"][0].data)


def test_a_net_that_shares_parameters_follows(backend: str) -> None:
    net, other = caffe.Net("net.prototxt", caffe.TRAIN), caffe.Net("net.prototxt", caffe.TEST)
    other.share_with(net)
    net.params["ip"][0].data[...] = 4
    assert (other.params["ip"][0].data == 4).all()
    x, label = np.ones((4, 3)), np.zeros(4)
    net.forward(data=x, label=label)
    net.params["ip"][0].data[...] = [[1, 2, 3], [0, 0, 0]]  # after a pass, which may have kept another order of them
    other.forward(data=x, label=label)
    np.testing.assert_allclose(other.blobs["ip"].data[:, 0] - other.params["ip"][1].data[0], 6, rtol=1e-6)
    assert backend


def test_a_net_takes_another_batch_size() -> None:
    net = caffe.Net("convolutions.prototxt", caffe.TEST)
    net.blobs["data"].reshape(5, 1, 10, 10)
    with pytest.raises(ShapeMismatchError, match="ip"):
        net.reshape()  # its inner product is for 8 x 8
    net.blobs["data"].reshape(5, 1, 8, 8)
    net.reshape()
    assert net.blobs["ip"].shape == (5, 2)
    assert net.forward(data=np.ones((5, 1, 8, 8)))["ip"].shape == (5, 2)


def test_nets_of_solvers_are_nets() -> None:
    solver = caffe.get_solver("solver.prototxt")
    assert isinstance(solver.net, caffe.Net)
    assert isinstance(solver.test_nets[0], caffe.Net)
    assert isinstance(caffe.Net("net.prototxt", caffe.TEST), caffe.Net)
    assert not isinstance(solver, caffe.Net)
    assert not isinstance(solver.net, caffe.Classifier)
