"""Single layers as ONNX models: the numbers that Caffe computed, out of onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import ExportError
from paratrain.tools.onnx import to_onnx
from tests.unit.layers.golden import GOLDEN_FOLDER
from tests.unit.tools.onnx.running import build, compare, run_onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

_REFUSED = {"filter": "depends on their values", "lstm": "begin sequences anew", "rnn": "begin sequences anew"}
_LOSSES = ("loss", "hinge", "sigmoid_cross", "accuracy", "silence")
_NAMES = sorted(path.stem for path in GOLDEN_FOLDER.glob("*.npz") if not any(word in path.stem for word in _LOSSES))


@pytest.mark.parametrize("name", [name for name in _NAMES if "train" not in name])
def test_a_layer_gives_what_caffe_computed(name: str) -> None:
    net = build((GOLDEN_FOLDER / f"{name}.prototxt").read_text())
    with np.load(GOLDEN_FOLDER / f"{name}.npz") as archive:
        case = {key: archive[key] for key in archive.files}
    inputs = {key.removeprefix("in/"): values for key, values in case.items() if key.startswith("in/")}
    layer = net.layers[net.layer_names.index("layer")]
    for index, blob in enumerate(layer.blobs):
        blob.data[...] = case[f"param/{index}"]
    for other, tops in zip(net.layers, net.top_names.values(), strict=True):
        if other.type == "Parameter" and other.name != "layer":
            other.blobs[0].data[...] = inputs[tops[0]]
    if name in _REFUSED:
        with pytest.raises(ExportError, match=_REFUSED[name]):
            to_onnx(net)
        return
    expected = {key.removeprefix("out/"): values for key, values in case.items() if key.startswith("out/")}
    expected |= {f"{key}_out": values for key, values in expected.items()}
    found = run_onnx(to_onnx(net).data, inputs)
    assert len(found) == len(expected) / 2
    compare(expected, found)
