"""Weights from one kind of file to another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import paratrain as caffe
from paratrain.data.tensor_files import Tensors
from paratrain.errors import ShapeMismatchError, SnapshotError
from paratrain.proto import LayerParameter, NetParameter, blob_to_array, read_binary, write_binary
from paratrain.proto.caffe_pb2 import FLOAT16
from paratrain.snapshot.convert import read_any, write_any

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 4 } }
"""


def test_half_precision_stays_half_and_fits_a_net_again(tmp_path: Path) -> None:
    values = np.array([[1.5, -0.25, 3.0]], np.float16)
    net = NetParameter(layer=[LayerParameter(name="fc", type="InnerProduct")])
    blob = net.layer[0].blobs.add(raw_data=values.tobytes(), raw_data_type=FLOAT16)
    blob.shape.dim.extend(values.shape)
    write_binary(tmp_path / "half.caffemodel", net)
    tensors = read_any(tmp_path / "half.caffemodel")
    assert tensors.layers["fc"][0].dtype == np.float16
    write_any(tmp_path / "half.npz", tensors)
    write_any(tmp_path / "single.caffemodel", read_any(tmp_path / "half.npz"))
    back = blob_to_array(read_binary(tmp_path / "single.caffemodel", NetParameter).layer[0].blobs[0])
    assert back.dtype == np.float32 and back.tolist() == values.tolist()


def test_double_precision_stays_double(tmp_path: Path) -> None:
    values = np.array([1 / 3, 2 / 3])
    write_any(tmp_path / "a.caffemodel", Tensors({"fc": {0: values}}))
    assert read_any(tmp_path / "a.caffemodel").layers["fc"][0].tobytes() == values.tobytes()


def test_the_four_axes_of_old_files_become_those_of_the_layer(tmp_path: Path) -> None:
    net = NetParameter()
    for name, kind, shapes in (
        ("conv", "Convolution", [(1, 1, 3, 3), (1, 1, 1, 1)]),
        ("fc", "InnerProduct", [(1, 1, 4, 3), (1, 1, 1, 4)]),
        ("one", "InnerProduct", [(1, 1, 1, 3), (1, 1, 1, 1)]),
    ):
        layer = net.layer.add(name=name, type=kind)
        for shape in shapes:
            blob = layer.blobs.add(num=shape[0], channels=shape[1], height=shape[2], width=shape[3])
            blob.data.extend(range(int(np.prod(shape))))
    write_binary(tmp_path / "old.caffemodel", net)
    found = read_any(tmp_path / "old.caffemodel").layers
    shapes_found = {name: [values.shape for values in blobs.values()] for name, blobs in found.items()}
    assert shapes_found == {
        "conv": [(1, 1, 3, 3), (1,)],
        "fc": [(4, 3), (4,)],
        "one": [(1, 3), (1,)],
    }


def test_a_layer_that_lacks_a_parameter_does_not_go_into_a_caffemodel(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="of layer 'fc' only those numbered 1 are there; write .caffemodel.h5"):
        write_any(tmp_path / "a.caffemodel", Tensors({"fc": {1: np.ones(2)}}))
    with pytest.raises(SnapshotError, match="the description that lies beside the weights cannot be read"):
        write_any(tmp_path / "a.caffemodel", Tensors({"fc": {0: np.ones(2)}}, "layer {"))
    with pytest.raises(SnapshotError, match="must end in one of"):
        write_any(tmp_path / "a.pth", Tensors({"fc": {0: np.ones(2)}}))


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_scripts_load_such_files_as_others(ending: str, tmp_path: Path) -> None:
    if ending == "safetensors":
        pytest.importorskip("safetensors")
    (tmp_path / "net.prototxt").write_text(NET)
    weights, bias = np.arange(12, dtype=np.float32).reshape(4, 3), np.ones(4, np.float32)
    write_any(tmp_path / f"w.{ending}", Tensors({"fc": {0: weights, 1: bias}}))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.copy_from(str(tmp_path / f"w.{ending}"))
    np.testing.assert_array_equal(net.params["fc"][0].data, weights)
    np.testing.assert_array_equal(net.params["fc"][1].data, bias)
    write_any(tmp_path / f"bad.{ending}", Tensors({"fc": {0: weights.T, 1: bias}}))
    with pytest.raises(ShapeMismatchError, match=r"\(4, 3\).*\(3, 4\)"):
        net.copy_from(str(tmp_path / f"bad.{ending}"))
