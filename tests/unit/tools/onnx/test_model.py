"""What a model looks like: its names, its inputs and outputs, and what is refused."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.errors import ExportError, MissingDependencyError
from paratrain.layers.base import LAYERS, LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from paratrain.tools.onnx import to_onnx, with_inputs
from paratrain.tools.onnx.view import TRANSLATIONS
from tests.unit.tools.onnx.running import build, compare, fill, run_net, run_onnx, session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DATA = (
    'layer { name: "data" type: "Input" top: "data" top: "label" '
    "input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 } } }\n"
)
BODY = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "drop1" type: "Dropout" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool1" top: "fc" inner_product_param { num_output: 5 } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }\n'
ACCURACY = 'layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" }\n'


def _inputs(net: Net) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.integers(0, 2, net.blobs[name].shape).astype(np.float32) for name in net.input_names}


def test_values_have_the_names_of_blobs_and_nodes_those_of_layers() -> None:
    net = build(DATA + BODY + ACCURACY + LOSS)
    fill(net)
    graph = onnx.load_from_string(to_onnx(net).data).graph
    assert [value.name for value in graph.input] == ["data"]
    assert [value.name for value in graph.output] == ["prob"]
    assert [node.name for node in graph.node] == [
        "conv1",
        "relu1",
        "pool1/AveragePool",
        "pool1/Mul",
        "fc/Flatten",
        "fc/Gemm",
        "loss",
    ]
    made = {node.name: list(node.output) for node in graph.node}
    # What a layer works on in place is called by the blob's name when the last of them is through.
    assert made["relu1"] == ["conv1"] and made["pool1/Mul"] == ["pool1"] and made["fc/Gemm"] == ["fc"]
    assert sorted(value.name for value in graph.initializer if value.name[-1].isdigit()) == [
        "conv1/0", "conv1/1", "fc/0", "fc/1",
    ]  # fmt: skip
    assert graph.node[0].doc_string == "layer 'conv1' (Convolution)"
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    assert shapes["conv1"] == [2, 4, 6, 6] and shapes["fc"] == [2, 5]


def test_losses_become_probabilities_or_nothing_and_are_told() -> None:
    net = build(DATA + BODY + ACCURACY + LOSS)
    fill(net)
    model = to_onnx(net)
    assert model.notes == [
        "layer 'accuracy' (Accuracy) is left out",
        "layer 'loss' (SoftmaxWithLoss) becomes its softmax, called 'prob'",
        "input 'label' is left out, since no output needs it",
    ]
    inputs = _inputs(net)
    scores = run_net(net, inputs)["fc"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    compare({"prob": powers / powers.sum(axis=1, keepdims=True)}, run_onnx(model.data, inputs))

    two = build(DATA + BODY + LOSS + LOSS.replace('"loss"', '"other"'))
    assert list(to_onnx(two).outputs) == ["loss_prob", "other_prob"]
    named = build(DATA + BODY + LOSS.replace('top: "loss"', 'top: "loss" top: "softmax"'))
    assert list(to_onnx(named).outputs) == ["softmax"]
    scored = build(DATA + BODY + ACCURACY)
    assert list(to_onnx(scored).outputs) == ["fc"]
    sigmoid = build(
        DATA + BODY + 'layer { name: "s" type: "SigmoidCrossEntropyLoss" bottom: "fc" bottom: "fc" top: "s" }'
    )
    assert list(to_onnx(sigmoid).outputs) == ["prob"]
    distance = build(DATA + BODY + 'layer { name: "e" type: "EuclideanLoss" bottom: "fc" bottom: "fc" top: "e" }')
    assert list(to_onnx(distance).outputs) == ["fc"]


def test_outputs_may_be_chosen() -> None:
    net = build(DATA + BODY + LOSS)
    fill(net)
    inputs, model = _inputs(net), to_onnx(net, outputs=["pool1", "conv1"])
    found = run_onnx(model.data, inputs)
    assert list(found) == ["pool1", "conv1"]
    compare(run_net(net, inputs), found)
    with pytest.raises(ExportError, match="output 'conv': no such blob; did you mean 'conv1'"):
        to_onnx(net, outputs=["conv"])
    with pytest.raises(ExportError, match="output 'loss': layer 'loss' is left out"):
        to_onnx(net, outputs=["loss"])


def test_an_input_that_is_overwritten_keeps_its_name() -> None:
    net = build(DATA + 'layer { name: "power" type: "Power" bottom: "data" top: "data" power_param { scale: 2 } }')
    model = to_onnx(net)
    assert list(model.outputs) == ["data_out"]
    inputs = _inputs(net)
    compare({"data_out": inputs["data"] * 2}, run_onnx(model.data, inputs))


def test_several_outputs_of_one_value() -> None:
    """A dropout makes nothing new, and both of a split's tops are its bottom."""
    net = build(
        DATA
        + 'layer { name: "abs" type: "AbsVal" bottom: "data" top: "abs" }'
        + 'layer { name: "twice" type: "Split" bottom: "abs" top: "one" top: "two" }'
        + 'layer { name: "drop" type: "Dropout" bottom: "two" top: "three" }'
    )
    inputs = _inputs(net)
    found = run_onnx(to_onnx(net).data, inputs)
    assert sorted(found) == ["one", "three"]
    compare(run_net(net, inputs), found)


def test_shared_parameters_are_there_once() -> None:
    twice = BODY + BODY.replace('"conv1"', '"conv1_p"').replace('"pool1"', '"pool1_p"').replace('"fc"', '"fc_p"')
    twice = twice.replace("convolution_param", 'param { name: "w" } param { name: "b" } convolution_param')
    net = build(DATA + twice.replace('"relu1"', '"relu1_p"', 2).replace('"relu1_p"', '"relu1"', 1).replace(
        'name: "drop1" type: "Dropout" bottom: "conv1_p"', 'name: "drop1_p" type: "Dropout" bottom: "conv1_p"'))  # fmt: skip
    fill(net)
    names = [value.name for value in onnx.load_from_string(to_onnx(net).data).graph.initializer]
    assert "conv1/0" in names and "conv1_p/0" not in names and "fc_p/0" in names


def test_an_open_batch_is_called_batch() -> None:
    net = build(DATA + BODY)
    model = to_onnx(net, dynamic_batch=True)
    opened = session(model.data)
    assert [value.shape for value in opened.get_inputs()] == [["batch", 3, 8, 8]]
    assert [value.shape for value in opened.get_outputs()] == [["batch", 5]]


def test_every_layer_that_cannot_be_said_is_listed() -> None:
    recurrent = "recurrent_param { num_output: 2 weight_filler { type: 'constant' } bias_filler { type: 'constant' } }"
    net = build(
        'layer { name: "x" type: "Input" top: "x" top: "cont" top: "s" '
        "input_param { shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 } shape { dim: 3 } } }"
        f'layer {{ name: "first" type: "LSTM" bottom: "x" bottom: "cont" top: "h" {recurrent} }}'
        f'layer {{ name: "second" type: "RNN" bottom: "h" bottom: "cont" top: "r" {recurrent} }}'
        'layer { name: "fine" type: "ReLU" bottom: "r" top: "y" }'
        'layer { name: "third" type: "Filter" bottom: "y" bottom: "s" top: "z" }'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "x" top: "l" }'
        'layer { name: "fourth" type: "Power" bottom: "l" top: "p" }'
    )
    with pytest.raises(ExportError) as caught:
        to_onnx(net)
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 layers cannot be said in ONNX:"
    for line, beginning in zip(
        lines[1:],
        [
            "'first' (LSTM): ONNX's LSTM cannot begin sequences anew",
            "'second' (RNN): ONNX's RNN cannot",
            "'third' (Filter): how many items it lets through depends on their values",
            "'fourth' (Power): reads 'l', which 'loss' makes, a layer that is left out",
        ],
        strict=True,
    ):
        assert line.strip().startswith(beginning)


def test_what_cannot_be_exported_at_all() -> None:
    text = DATA + BODY
    training = Net(parse_prototxt(text, NetParameter), LayerContext(create_backend("numpy"), TRAIN))
    with pytest.raises(ExportError, match="only a net in the TEST phase"):
        to_onnx(training)
    with pytest.raises(ExportError, match="opset 12 is not known; choose one from 13 to 23"):
        to_onnx(build(text), opset=12)
    with pytest.raises(ExportError, match="nothing is left to export"):
        to_onnx(build(DATA))


def test_data_layers_become_inputs() -> None:
    source = DATA.replace('type: "Input"', 'type: "Data" data_param { source: "missing" batch_size: 9 }').split(
        "input_param"
    )[0]
    net = parse_prototxt(source + "}\n" + BODY, NetParameter)
    with pytest.raises(ExportError, match=r"layer 'data' \(Data\): the shape .* give it, such as --input-shape data="):
        with_inputs(net, {})
    with pytest.raises(ExportError, match="makes a blob 'dat'; did you mean 'data'"):
        with_inputs(net, {"dat": (1, 3, 8, 8)})
    ready = with_inputs(net, {"data": (9, 3, 8, 8), "label": (9,)}, batch=4)
    assert ready.layer[0].type == "Input" and not ready.layer[0].HasField("data_param")
    assert [tuple(shape.dim) for shape in ready.layer[0].input_param.shape] == [(4, 3, 8, 8), (4,)]


def test_every_layer_type_is_thought_of() -> None:
    """One that is neither translated nor left out has a reason of its own."""
    for name in LAYERS.names():
        kind = LAYERS.get(name)
        if (
            name in TRANSLATIONS
            or kind.is_data
            or kind.is_loss
            or name in ("Accuracy", "HDF5Output", "Input", "Silence")
        ):
            continue
        assert name in ("Filter", "LSTM", "Python", "RNN"), name


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'paratrain[onnx]'")):
        to_onnx(build(DATA + BODY))
