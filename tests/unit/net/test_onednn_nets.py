"""Whole nets on oneDNN against the numpy backend: layers that are computed as one, and blobs that stay arranged."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.layers import LayerContext
from paratrain.net import Net
from paratrain.proto import TEST, TRAIN, NetParameter, parse_prototxt
from tests.optional import need_onednn

CONVOLUTION = """
layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {more}
  convolution_param {{ num_output: {channels} kernel_size: 3 pad: 1 bias_term: false
    weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
"""
CHAIN = """
layer {{ name: "{name}_norm" type: "BatchNorm" bottom: "{name}" top: "{name}" {norm} }}
layer {{ name: "{name}_scale" type: "Scale" bottom: "{name}" top: "{name}" {scale}
  scale_param {{ filler {{ type: "uniform" min: 0.5 max: 1.5 }} {bias} }} }}
"""
RELU = 'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}'
LOSS = """
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""


@pytest.fixture(autouse=True)
def _onednn() -> None:
    need_onednn()


def residual_net(channels: int, *, bias: str = "bias_term: true", relu: bool = True, **more: str) -> str:
    """Two convolutions with a chain behind each, whose sum is rectified."""
    text = """
    layer { name: "data" type: "Input" top: "data" top: "target"
      input_param { shape { dim: 4 dim: 3 dim: 6 dim: 5 } shape { dim: 4 dim: 3 } } }
    """
    settings = {"norm": "", "scale": "", **more}
    for name, bottom in (("a", "data"), ("b", "a")):
        text += CONVOLUTION.format(name=name, bottom=bottom, channels=channels, more=more.get("convolution", ""))
        text += CHAIN.format(name=name, bias=bias, **settings)
        text += RELU.format(name=name) if relu and name == "a" else ""
    text += 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }'
    return text + RELU.format(name="sum") + LOSS


def build_both(text: str, phase: int = TRAIN) -> list[Net]:
    """The net on both backends, with the same weights and inputs."""
    nets = []
    for name in ("numpy", "onednn"):
        context = LayerContext(backend=create_backend(name), phase=phase, dtype=np.float32, seed=1)  # type: ignore[arg-type]
        nets.append(Net(parse_prototxt(text, NetParameter), context))
    for name in ("data", "target"):
        nets[0].blobs[name].data[...] = np.random.default_rng(2).normal(size=nets[0].blobs[name].shape)
        nets[1].blobs[name].data[...] = nets[0].blobs[name].data
    nets[1].copy_trained_layers_from(nets[0].to_proto())
    return nets


def compare(nets: list[Net], diffs: bool = True) -> None:
    plain, arranged = nets
    for name, blob in plain.blobs.items():
        close(arranged.blobs[name].read_data(None), blob.read_data(None), f"{name}.data")
        if diffs and name not in ("data", "target"):
            close(arranged.blobs[name].read_diff(None), blob.read_diff(None), f"{name}.diff")
    for name, blobs in plain.params.items():
        for index, blob in enumerate(blobs):
            close(arranged.params[name][index].data, blob.data, f"{name} {index}")
            close(arranged.params[name][index].diff, blob.diff, f"gradient of {name} {index}")


def close(found: object, expected: object, what: str) -> None:
    largest = max(float(np.abs(expected).max()), 1e-3)  # type: ignore[call-overload]
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=1e-4, err_msg=what)  # type: ignore[operator]


NETS = {
    "blocks": residual_net(16),
    "padded blocks or channels last": residual_net(20),
    "no ReLU": residual_net(16, relu=False),
    "no bias": residual_net(16, bias=""),
    "given statistics": residual_net(16, norm="batch_norm_param { use_global_stats: true }"),
    "fixed factors": residual_net(16, scale="param { lr_mult: 0 } param { lr_mult: 0 }"),
    "fixed convolutions": residual_net(16, convolution="param { lr_mult: 0 }"),
}


def run(nets: list[Net], passes: int = 1) -> None:
    for net in nets:
        for _ in range(passes):
            net.forward_from_to()
            net.backward_from_to()


@pytest.mark.parametrize("name", NETS)
def test_batch_norm_scale_and_relu_as_one(name: str) -> None:
    nets = build_both(NETS[name])
    for _ in range(2):
        run(nets, 2)
        compare(nets)
    joined = [layer.is_joined for layer in nets[1].layers if layer.type == "BatchNorm"]  # type: ignore[attr-defined]
    assert joined == [name != "fixed convolutions", True]


def test_in_test_phase() -> None:
    nets = build_both(NETS["blocks"], TEST)
    for net in nets:
        for layer in net.layers:
            if layer.type == "BatchNorm":
                layer.blobs[0].data[...], layer.blobs[1].data[...], layer.blobs[2].data[...] = 0.5, 3, 2
        net.forward_from_to()
    compare(nets, diffs=False)
    assert all(layer.is_joined for layer in nets[1].layers if layer.type == "BatchNorm")  # type: ignore[attr-defined]


def test_a_test_between_two_steps() -> None:
    nets = build_both(NETS["blocks"])
    for _ in range(2):
        run(nets)
        for net in nets:
            with net.forward_only():
                net.forward_from_to()
    run(nets)
    compare(nets)


@pytest.mark.parametrize("name", ["blocks", "padded blocks or channels last", "given statistics"])
def test_passes_over_some_of_the_layers(name: str) -> None:
    nets = build_both(NETS[name])
    count = len(nets[0].layers)
    for cut in range(1, count):
        for net in nets:
            net.forward_from_to()
            net.backward_from_to(count - 1, cut)
            net.backward_from_to(cut - 1, 0)
        compare(nets)
        for net in nets:
            net.clear_param_diffs()
            net.forward_from_to(0, cut - 1)
            net.forward_from_to(cut)
            net.backward_from_to()
        compare(nets)


def test_layers_one_by_one() -> None:
    nets = build_both(NETS["blocks"])
    run(nets)
    for net, index in itertools.product(nets, range(len(nets[0].layers))):
        net.forward_layer(index)
    for net, index in itertools.product(nets, reversed(range(len(nets[0].layers)))):
        net.backward_layer(index)
    compare(nets)


def test_debug_info_shows_each_layer() -> None:
    nets = build_both(NETS["blocks"])
    run(nets)
    nets[1].debug_info = True
    run(nets)
    compare(nets)
    assert not any(layer.is_joined for layer in nets[1].layers if layer.type == "BatchNorm")  # type: ignore[attr-defined]


def two_blocks() -> str:
    """A second block on top of the first, whose shortcut is the first block's sum itself."""
    text = residual_net(16).replace(LOSS, "")
    text += CONVOLUTION.format(name="c", bottom="sum", channels=16, more="")
    text += CHAIN.format(name="c", bias="bias_term: true", norm="", scale="")
    text += 'layer { name: "sum2" type: "Eltwise" bottom: "sum" bottom: "c" top: "sum2" }'
    return text + RELU.format(name="sum2") + LOSS.replace('bottom: "sum"', 'bottom: "sum2"')


def test_shortcut_of_a_residual_block() -> None:
    nets = build_both(two_blocks())
    for _ in range(2):
        run(nets)
        compare(nets)
    split, total = (nets[1].blobs[name] for name in ("sum_sum_relu_0_split_1", "sum2"))
    assert split.diff_memory is total.diff_memory
    assert nets[1].blobs["c"].diff_memory is not total.diff_memory


def test_backward_from_a_split_on_which_no_gradient_has_come_to_yet() -> None:
    text = residual_net(16).replace(LOSS, "") + LOSS.replace('bottom: "sum"', 'bottom: "a"')
    nets = build_both(text)
    for net in nets:
        net.forward_from_to()
        net.backward_from_to(net.layer_names.index("a_a_relu_0_split"))
    compare(nets)
    assert not np.any(nets[1].blobs["a"].read_diff(None))
