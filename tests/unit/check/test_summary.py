from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paratrain.check import check_file
from paratrain.check.summary import Table, format_table, open_weights, summarize_net, summarize_weights
from paratrain.errors import SnapshotError
from paratrain.proto import NetParameter, write_binary
from paratrain.proto.blob_proto import array_to_blob

NET = """
name: "n"
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 9 dim: 9 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 }
  param { name: "b" lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_h: 2 kernel_w: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "relu" type: "ReLU" bottom: "pool" top: "r" }
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path / "net.prototxt"


def test_a_line_for_each_layer(net: Path) -> None:
    table = summarize_net(check_file(net).nets[0].shaped)
    assert table.rows == [
        ("in", "Input", "", "-> data", "", "2 x 4 x 9 x 9", "", ""),
        ("conv", "Convolution", "(, b x2 Dx0)", "data -> conv", "3/2+1 6/2", "2 x 6 x 5 x 5", "114", "5.4 k"),
        ("pool", "Pooling", "", "conv -> pool", "2x3/2", "2 x 6 x 3 x 2", "", ""),
        ("ip", "InnerProduct", "", "pool -> [ip]", "5", "2 x 5", "185", "360"),
        ("relu", "ReLU", "", "pool -> [r]", "", "2 x 6 x 3 x 2", "", ""),
        ("total", "5 layers", "", "", "", "", "299", "5.76 k"),
    ]


def test_weights_and_whether_they_fit(net: Path, tmp_path: Path) -> None:
    source = NetParameter()
    for name, shapes in (("conv", [(6, 2, 3, 3), (1, 1, 1, 6)]), ("ip", [(5, 7)]), ("other", [(2,)])):
        layer = source.layer.add(name=name)
        for shape in shapes:
            array_to_blob(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), layer.blobs.add())
    write_binary(tmp_path / "w.caffemodel", source)
    weights = open_weights(tmp_path / "w.caffemodel")
    rows = {(row[0], row[1]): row for row in summarize_weights(weights, check_file(net).nets[0].shaped).rows}
    assert [row[-1] for row in rows.values()] == ["fits", "fits", "the net has 5 x 36", "no such layer", ""]
    assert rows["ip", "0"][2:8] == ("5 x 7", "35", "17", "10.1", "0", "34")
    assert rows["total", ""][3] == "151"
    assert all(row[-1] == "" for row in summarize_weights(weights).rows)
    del weights["conv"]
    assert summarize_weights(weights, check_file(net).nets[0].shaped).rows[-2][::8] == ("conv", "not in the weights")


def test_what_holds_no_weights(tmp_path: Path) -> None:
    (tmp_path / "w.caffemodel").write_bytes(b"\n\1n")
    with pytest.raises(SnapshotError, match="holds no layers; expected a caffemodel"):
        open_weights(tmp_path / "w.caffemodel")


def test_columns_no_wider_than_asked() -> None:
    table = Table(("a", "b", "c"), [("x" * 9, "y", "1"), ("x", "y", "2")], (2,))
    assert list(format_table(table, 4)) == ["a     b  c", "----  -  -", "xxxxxxxxx  y  1", "x     y  2"]
    assert next(iter(format_table(table))) == "a          b  c"
