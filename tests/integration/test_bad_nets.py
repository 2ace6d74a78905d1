"""Networks that cannot work: the message names the layer, the blob and the figures, and nobody sees a traceback."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest

from paratrain.backends import create_backend
from paratrain.errors import LayerError, NetError
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from paratrain.proto.limits import LARGEST_LAYER_COUNT
from tests.integration.cli import error, write_solver
from tests.integration.cli import paratrain_here as run

IMAGES = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 } data_filler { type: "constant" } } }
"""


def layer(name: str, kind: str, bottoms: str, tops: str, extra: str = "") -> str:
    """The text of a layer; ``bottoms`` and ``tops`` are names with blanks between them."""
    wires = "".join(f'bottom: "{blob}" ' for blob in bottoms.split()) + "".join(
        f'top: "{blob}" ' for blob in tops.split()
    )
    return f'layer {{ name: "{name}" type: "{kind}" {wires} {extra} }}\n'


def convolution(extra: str) -> str:
    return layer("conv", "Convolution", "data", "conv", f"convolution_param {{ {extra} }}")


def inner_product(name: str, bottom: str, top: str, count: int, extra: str = "") -> str:
    return layer(name, "InnerProduct", bottom, top, f"inner_product_param {{ num_output: {count} }} {extra}")


SHARED = 'param { name: "w" }'

CASES = {
    "too few bottoms": (
        layer("loss", "SoftmaxWithLoss", "data", "loss"),
        ["layer 'loss' (SoftmaxWithLoss)", "exactly 2 bottom blobs", "gives 1"],
    ),
    "too many bottoms": (
        layer("pool", "Pooling", "data label", "pool", "pooling_param { kernel_size: 2 }"),
        ["layer 'pool' (Pooling)", "exactly 1 bottom blobs", "gives 2"],
    ),
    "too many tops": (
        layer("relu", "ReLU", "data", "a b"),
        ["layer 'relu' (ReLU)", "exactly 1 top blobs", "gives 2"],
    ),
    "bottoms and tops in different numbers": (
        layer("conv", "Convolution", "data data", "a", "convolution_param { num_output: 1 kernel_size: 1 }"),
        ["layer 'conv' (Convolution)", "2 bottoms and 1 tops"],
    ),
    "an axis out of range": (
        layer("ip", "InnerProduct", "data", "ip", "inner_product_param { num_output: 4 axis: 7 }"),
        ["layer 'ip' (InnerProduct)", "axis is 7", "'data'", "(2, 3, 8, 8)"],
    ),
    "an axis to be cut that is not there": (
        layer("slice", "Slice", "data", "a b", "slice_param { axis: -5 }"),
        ["layer 'slice' (Slice)", "-5", "'data'", "(2, 3, 8, 8)"],
    ),
    "shapes that do not add up": (
        inner_product("a", "data", "a", 4) + inner_product("b", "data", "b", 5) + layer("sum", "Eltwise", "a b", "sum"),
        ["layer 'sum' (Eltwise)", "(2, 4)", "(2, 5)"],
    ),
    "shapes that do not broadcast": (
        layer("scale", "Scale", "data label", "scale", "scale_param { axis: 1 }"),
        ["layer 'scale' (Scale)", "'label'", "(2,)", "(2, 3, 8, 8)"],
    ),
    "shapes that cannot be joined": (
        layer("concat", "Concat", "data label", "concat"),
        ["layer 'concat' (Concat)", "(2, 3, 8, 8)", "(2,)"],
    ),
    "a kernel larger than the padded input": (
        convolution("num_output: 4 kernel_size: 11 pad: 1"),
        ["layer 'conv' (Convolution)", "(11, 11)", "'data'", "(2, 3, 8, 8)", "(10, 10)"],
    ),
    "outputs that the groups do not divide": (
        convolution("num_output: 7 kernel_size: 1 group: 3"),
        ["layer 'conv' (Convolution)", "num_output 7", "group: 3"],
    ),
    "channels that the groups do not divide": (
        convolution("num_output: 8 kernel_size: 1 group: 2"),
        ["layer 'conv' (Convolution)", "3 channels", "'data'", "group: 2"],
    ),
    "a reshape with another count": (
        layer("reshape", "Reshape", "data", "r", "reshape_param { shape { dim: 5 dim: -1 } }"),
        ["layer 'reshape' (Reshape)", "'data'", "(2, 3, 8, 8)", "384", "5"],
    ),
    "a loss in place": (
        inner_product("ip", "data", "ip", 4) + layer("loss", "SoftmaxWithLoss", "ip label", "ip"),
        ["layer 'loss' (SoftmaxWithLoss)", "'ip'", "in place"],
    ),
    "two layers of one name": (
        inner_product("ip", "data", "a", 4) + inner_product("ip", "a", "b", 4),
        ["two layers are named 'ip'"],
    ),
    "a blob made twice": (
        inner_product("a", "data", "ip", 4) + inner_product("b", "data", "ip", 4),
        ["layer 'b' (InnerProduct)", "top[0] 'ip'", "already made"],
    ),
    "a bottom that nobody makes": (
        inner_product("a", "dat", "ip", 4),
        ["layer 'a' (InnerProduct)", "'dat'", "did you mean 'data'"],
    ),
    "a circle": (
        inner_product("a", "b", "a", 4) + inner_product("b", "a", "b", 4),
        ["layer 'a' (InnerProduct)", "'b'", "comes later"],
    ),
    "a shared parameter of two shapes": (
        inner_product("a", "data", "a", 4, SHARED) + inner_product("b", "a", "b", 4, SHARED),
        ["layer 'b' (InnerProduct)", "'w'", "(4, 4)", "(4, 192)", "layer 'a'"],
    ),
    "a ring of shared parameters": (
        inner_product("a", "data", "a", 4, 'param { name: "w" } param { name: "v" }')
        + inner_product("b", "data", "b", 4, 'param { name: "v" } param { name: "w" }'),
        ["layer 'b' (InnerProduct)", "'v'", "(4, 192)", "(4,)", "layer 'a'"],
    ),
    "shared learning rates that differ": (
        inner_product("a", "data", "a", 4, 'param { name: "w" lr_mult: 1 }')
        + inner_product("b", "data", "b", 4, 'param { name: "w" lr_mult: 2 }'),
        ["'w'", "lr_mult is 2 in layer 'b' and 1 in layer 'a'"],
    ),
    "more settings than parameters": (
        inner_product("a", "data", "a", 4, "param { } param { } param { }"),
        ["layer 'a' (InnerProduct)", "3 times", "2 parameter blobs"],
    ),
    "a filler that is not there": (
        convolution('num_output: 4 kernel_size: 1 weight_filler { type: "xavir" }'),
        ["layer 'conv' (Convolution)", "blob 0", "'xavir'", "'xavier'"],
    ),
    "gradients that are switched for other bottoms": (
        inner_product("a", "data", "a", 4, "propagate_down: true propagate_down: false"),
        ["layer 'a' (InnerProduct)", "propagate_down is given 2 times for 1 bottoms"],
    ),
    "loss weights for other tops": (
        inner_product("a", "data", "a", 4, "loss_weight: 1 loss_weight: 2"),
        ["layer 'a' (InnerProduct)", "loss_weight is given 2 times for 1 tops"],
    ),
    "an unknown type": (layer("a", "Convolutionn", "data", "a"), ["layer 'a'", "'Convolutionn'", "'Convolution'"]),
    "rules of both kinds": (
        inner_product("a", "data", "a", 4, "include { phase: TRAIN } exclude { phase: TEST }"),
        ["layer 'a' (InnerProduct)", "include", "exclude"],
    ),
    "a blob of 2^40 values": (
        layer("big", "Input", "", "big", f"input_param {{ shape {{ dim: {1 << 40} }} }}"),
        ["layer 'big' (Input)", "(1099511627776,)", "2,147,483,647"],
    ),
    "weights of 2^40 values": (
        layer("ip", "InnerProduct", "data", "ip", "inner_product_param { num_output: 4294967295 }"),
        ["layer 'ip' (InnerProduct)", "(4294967295, 192)", "2,147,483,647"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_check_names_what_is_wrong(name: str, tmp_path: Path) -> None:
    text, parts = CASES[name]
    (tmp_path / "net.prototxt").write_text(IMAGES + text)
    done = run(tmp_path, "check", "net.prototxt")
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert any(all(part in problem for part in parts) for problem in problems), problems


@pytest.mark.parametrize("name", CASES)
def test_a_net_is_refused_with_the_same_names(name: str) -> None:
    text, parts = CASES[name]
    with pytest.raises(NetError) as caught:
        Net(parse_prototxt(IMAGES + text, NetParameter), LayerContext(create_backend(), TRAIN))
    for part in parts:
        assert part in str(caught.value)


def test_one_run_finds_all_of_them(tmp_path: Path) -> None:
    """All cases in one file; the names in each end in its number."""
    text = IMAGES
    for number, (case, _) in enumerate(CASES.values()):
        text += re.sub(r'\b(name|bottom|top): "(?!data"|label")(\w+)"', rf'\1: "\2_{number}"', case)
    (tmp_path / "net.prototxt").write_text(text)
    done = run(tmp_path, "check", "net.prototxt")
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    for number, name in enumerate(CASES):
        assert any(f"_{number}'" in problem for problem in problems), name
    # The ring of parameters is two problems. Nothing is reported that merely follows from something else.
    assert len(problems) == len(CASES) + 1, "\n".join(problems)


def test_fields_of_another_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = IMAGES + layer(
        "conv",
        "Convolution",
        "data",
        "conv",
        "convolution_param { num_output: 1 kernel_size: 1 } pooling_param { pool: AVE }",
    )
    (tmp_path / "net.prototxt").write_text(text)
    done = run(tmp_path, "check", "net.prototxt")
    assert done.returncode == 1
    assert "layer 'conv' (Convolution): pooling_param is given, which layers of type Pooling read" in done.stdout
    # Caffe trains such a net, so it trains here, with a warning.
    Net(parse_prototxt(text, NetParameter), LayerContext(create_backend(), TRAIN)).close()
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "pooling_param" in warning.getMessage()


def test_labels_outside_the_classes(tmp_path: Path) -> None:
    net = IMAGES.replace('"constant"', '"constant" value: 9') + inner_product("ip", "data", "ip", 4)
    (tmp_path / "net.prototxt").write_text(net + layer("loss", "SoftmaxWithLoss", "ip label", "loss"))
    message = error(run(tmp_path, "time", "-model", "net.prototxt", "-iterations", "1"))
    for part in ("layer 'loss' (SoftmaxWithLoss)", "'label'", "the label 9", "position 0", "4 classes"):
        assert part in message


def test_training_a_bad_net_shows_one_message(tmp_path: Path) -> None:
    message = error(
        run(tmp_path, "train", write_solver(tmp_path, net=IMAGES + CASES["a kernel larger than the padded input"][0]))
    )
    assert message.startswith("layer 'conv' (Convolution): the kernel (11, 11)")


@pytest.mark.parametrize("verb", ["check", "train"])
def test_too_many_layers_are_refused_before_they_are_read(tmp_path: Path, verb: str) -> None:
    count = 1_000_000
    net = 'layer { name: "x" type: "ReLU" }\n' * count
    solver = write_solver(tmp_path, net=net)
    tracemalloc.start()
    try:
        done = run(tmp_path, verb, "small.net.prototxt" if verb == "check" else solver)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (
        f"this network has {count:,} layers; paratrain takes at most {LARGEST_LAYER_COUNT:,}"
        in done.stdout + done.stderr
    )
    assert peak_bytes < 8 * len(net)


def test_too_many_layers_of_a_binary_file_are_refused() -> None:
    net = NetParameter(layer=[{"name": "x"}] * (LARGEST_LAYER_COUNT + 1))
    with pytest.raises(NetError, match=r"50,001 layers; paratrain takes at most 50,000"):
        Net(net, LayerContext(create_backend(), TRAIN))


def test_more_memory_than_the_machine_has_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs that Caffe's own limit allows, on a machine with 1 GB left."""
    monkeypatch.setattr("paratrain.blob.limits.available_bytes", lambda: 10**9)
    big = layer("big", "DummyData", "", "big", "dummy_data_param { shape { dim: 2000000000 } }")
    with pytest.raises(
        LayerError, match=r"layer 'big' \(DummyData\): a block of 2,000,000,000 values would take 7.45 GiB"
    ):
        Net(parse_prototxt(big, NetParameter), LayerContext(create_backend(), TRAIN))
    many = "".join(layer(f"in{i}", "Input", "", f"in{i}", "input_param { shape { dim: 100000000 } }") for i in range(9))
    with pytest.raises(
        NetError, match=r"the data of the 9 blobs of network '' \(the largest: 'in0' .* would take 3.35 GiB"
    ):
        Net(parse_prototxt(many, NetParameter), LayerContext(create_backend(), TRAIN))
