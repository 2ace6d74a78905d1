"""What layers keep between forward and backward, and where gradients take memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.errors import LayerError, NetError
from paratrain.layers.base import Layer
from paratrain.layers.buffers import Buffer
from paratrain.net import Net
from paratrain.proto import TEST, TRAIN, Phase
from tests.unit.net.build import DATA, LABEL, build, inner_product

LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "loss" }'
IMAGES = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 5 } } }'
CONVOLUTION = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" %s
    convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.5 } } }"""
CHAIN = (
    'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "%s" }',
    'layer { name: "scale" type: "Scale" bottom: "%s" top: "%s" %s scale_param { bias_term: true } }',
    'layer { name: "prelu" type: "PReLU" bottom: "%s" top: "%s" %s }',
    'layer { name: "power" type: "Power" bottom: "%s" top: "%s" power_param { power: 2 scale: 0.5 } }',
    'layer { name: "elu" type: "ELU" bottom: "%s" top: "%s" elu_param { alpha: -0.5 } }',
    'layer { name: "relu" type: "ReLU" bottom: "%s" top: "%s" relu_param { negative_slope: -0.1 } }',
    'layer { name: "swish" type: "Swish" bottom: "%s" top: "%s" }',
    'layer { name: "clip" type: "Clip" bottom: "%s" top: "%s" clip_param { min: -0.3 max: 0.4 } }',
)
FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


def chain(in_place: bool, frozen: bool = False) -> list[str]:
    names = ["conv"] * (len(CHAIN) + 1) if in_place else ["conv", "b", "s", "p", "w", "e", "r", "h", "c"]
    extra = {1: FROZEN, 2: "param { lr_mult: 0 }"} if frozen else {}
    texts = [CONVOLUTION % (FROZEN if frozen else ""), CHAIN[0] % names[1]]
    for index, text in enumerate(CHAIN[1:], start=1):
        ends = (names[index], names[index + 1])
        texts.append(text % ((*ends, extra.get(index, "")) if index in (1, 2) else ends))
    return [*texts, inner_product("ip", names[-1], "ip")]


def images() -> npt.NDArray[Any]:
    return np.random.default_rng(0).normal(size=(2, 3, 5, 5))


def kept_bytes(layer: Layer) -> int:
    buffers = [value for value in vars(layer).values() if isinstance(value, Buffer)]
    return sum(buffer._flat.nbytes for buffer in buffers if buffer._flat is not None)


def chain_bytes(net: Net) -> dict[str, int]:
    return {layer.name: kept_bytes(layer) for layer in net.layers if layer.type not in ("Convolution", "InnerProduct")}


@pytest.mark.parametrize("phase", [TEST, TRAIN])
def test_without_backward_layers_in_place_keep_nothing(phase: Phase) -> None:
    inference = build(IMAGES, *chain(in_place=True), phase=phase)
    inference.forward(data=images())
    assert set(chain_bytes(inference).values()) == {0}
    frozen = build(IMAGES, LABEL, *chain(in_place=True, frozen=True), LOSS % "ip", phase=phase)
    frozen.forward(data=images(), label=[0, 1])
    assert not any(chain_bytes(frozen).values())
    apart = build(IMAGES, *chain(in_place=False), phase=phase)
    expected = apart.forward(data=images())["ip"]
    assert inference.blobs["ip"].data == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(expected).all() and expected.any()


def test_in_place_gradients_are_those_of_blobs_apart() -> None:
    nets = [build(IMAGES, LABEL, *chain(in_place), LOSS % "ip", dtype=np.float64) for in_place in (True, False)]
    for net in nets:
        net.forward(data=images(), label=[0, 1])
        net.backward()
    assert kept_bytes(nets[0].layer_dict["scale"]) == nets[0].blobs["conv"].data.nbytes
    for name, blobs in nets[0].params.items():
        for index, blob in enumerate(blobs):
            assert blob.diff == pytest.approx(nets[1].params[name][index].diff, rel=1e-9, abs=1e-12), (name, index)
    assert nets[0].params["conv"][0].diff.any() and nets[0].params["prelu"][0].diff.any()


def test_a_test_keeps_nothing_and_refuses_backward_until_the_next_pass() -> None:
    net = build(IMAGES, LABEL, *chain(in_place=True), LOSS % "ip", phase=TEST)
    for blob in net.params["bn"][1:]:
        blob.data[...] = 1
    with net.forward_only():
        net.forward(data=images(), label=[0, 1])
    assert not any(chain_bytes(net).values())
    with pytest.raises(NetError, match="layer 'loss'.* keeps nothing for backward; run forward"):
        net.backward()
    net.forward(data=images(), label=[0, 1])
    net.backward()
    assert net.params["scale"][0].diff.any()


READERS = 'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }'


def test_a_split_with_one_gradient_takes_no_memory() -> None:
    net = build(DATA, LABEL, inner_product("ip", "data", "ip"), READERS, LOSS % "ip")
    plain = build(DATA, LABEL, inner_product("ip", "data", "ip"), LOSS % "ip")
    for _ in range(2):
        for each in (net, plain):
            each.clear_param_diffs()
            each.forward(data=[[1, 2, 3]] * 2, label=[0, 1])
            each.backward()
    read, loss = (net.blobs[f"ip_ip_0_split_{index}"] for index in range(2))
    assert read.diff_is_untouched
    assert loss.diff_memory is net.blobs["ip"].diff_memory
    assert net.blobs["ip"].diff.any()
    assert np.array_equal(net.params["ip"][0].diff, plain.params["ip"][0].diff)


def test_a_split_adds_up_several_gradients() -> None:
    net = build(DATA, LABEL, inner_product("ip", "data", "ip"), READERS, LOSS % "ip",
                'layer { name: "again" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "again" }')  # fmt: skip
    net.forward(data=[[1, 2, 3]] * 2, label=[0, 1])
    net.backward()
    read, *losses = (net.blobs[f"ip_ip_0_split_{index}"] for index in range(3))
    assert read.diff_is_untouched
    assert losses[0].diff.any()
    assert np.array_equal(net.blobs["ip"].diff, losses[0].diff + losses[1].diff)


def test_outputs_of_a_split_carry_the_gradients_written_by_hand() -> None:
    split = 'layer { name: "split" type: "Split" bottom: "data" top: "a" top: "b" }'
    net = build("force_backward: true", DATA, split)
    for _ in range(2):
        net.forward(data=[[1, 2, 3]] * 2)
        net.backward(b=[[4, 5, 6]] * 2)
        assert np.array_equal(net.blobs["data"].diff, [[4, 5, 6]] * 2)
    net.backward(a=[[1, 1, 1]] * 2)
    assert np.array_equal(net.blobs["data"].diff, [[5, 6, 7]] * 2)


def test_a_gradient_written_by_hand_beside_the_only_one_counts() -> None:
    net = build("force_backward: true", DATA, LABEL, inner_product("ip", "data", "ip"), READERS, LOSS % "ip")
    net.forward(data=[[1, 2, 3]] * 2, label=[0, 1])
    net.backward()
    alone = net.blobs["ip"].diff.copy()
    net.backward(ip_ip_0_split_0=np.ones((2, 4)))
    assert net.blobs["ip"].diff == pytest.approx(alone + 1)


def test_a_bottom_that_no_longer_fits_names_the_layer() -> None:
    net = build(DATA, inner_product("ip", "data", "ip"))
    net.blobs["data"].reshape(2, 4)
    with pytest.raises(LayerError, match="layer 'ip'"):
        net.forward()
