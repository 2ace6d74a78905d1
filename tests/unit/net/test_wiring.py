"""How layers find their blobs, and which of them need backward."""

from __future__ import annotations

import pytest

from paratrain.errors import LayerError, NetError
from tests.unit.net.build import DATA, LABEL, build, inner_product

LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "loss" }'


def needs(*layers: str) -> dict[str, bool]:
    net = build(*layers)
    return dict(zip(net.layer_names, net.layers_needing_backward, strict=True))


def test_a_bottom_that_nobody_makes_names_the_nearest() -> None:
    with pytest.raises(NetError, match=r"layer 'ip'.* 'dta', is made by no layer above it; did you mean 'data'"):
        build(DATA, inner_product("ip", "dta", "ip"))


def test_a_top_made_twice_is_refused() -> None:
    with pytest.raises(LayerError, match=r"layer 'b'.*top\[0\] 'x' is already made by another layer"):
        build(DATA, inner_product("a", "data", "x"), inner_product("b", "data", "x"))


def test_two_layers_of_one_name_are_refused() -> None:
    with pytest.raises(NetError, match="two layers are named 'a'"):
        build(DATA, inner_product("a", "data", "x"), inner_product("a", "x", "y"))


def test_an_unknown_layer_type_names_the_layer_and_the_nearest_types() -> None:
    with pytest.raises(LayerError, match="layer 'a': unknown layer type 'InerProduct'; did you mean 'InnerProduct'"):
        build(DATA, 'layer { name: "a" type: "InerProduct" bottom: "data" top: "x" }')


def test_a_wrong_number_of_blobs_is_refused() -> None:
    with pytest.raises(LayerError, match=r"layer 'r' \(ReLU\): takes exactly 1 bottom blobs; the prototxt gives 2"):
        build(DATA, LABEL, 'layer { name: "r" type: "ReLU" bottom: "data" bottom: "label" top: "x" }')


def test_only_what_leads_to_a_loss_needs_backward() -> None:
    found = needs(
        DATA, LABEL, inner_product("ip", "data", "ip"), LOSS % "ip", inner_product("beside", "ip", "beside"),
    )  # fmt: skip
    assert found["ip"] and found["loss"]
    assert not found["data"] and not found["label"] and not found["beside"]


def test_frozen_layers_below_all_learning_ones_need_none() -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    found = needs(DATA, LABEL, inner_product("a", "data", "a", extra=frozen), inner_product("b", "a", "b"), LOSS % "b")
    assert not found["a"] and found["b"]
    found = needs(DATA, LABEL, inner_product("a", "data", "a"), inner_product("b", "a", "b", extra=frozen), LOSS % "b")
    assert found["a"] and found["b"]


def test_propagate_down_cuts_and_forces() -> None:
    layers = [DATA, LABEL, inner_product("a", "data", "a"), inner_product("b", "a", "b", extra="propagate_down: false")]
    found = needs(*layers, LOSS % "b")
    assert found["b"] and not found["a"]
    net = build(DATA, LABEL, inner_product("a", "data", "a", extra="propagate_down: true"), LOSS % "a")
    net.forward(data=[[1, 2, 3]] * 2, label=[0, 1])
    net.backward()
    assert net.blobs["data"].diff.any()
    with pytest.raises(LayerError, match="propagate_down is given 2 times for 1 bottoms"):
        build(DATA, inner_product("a", "data", "a", extra="propagate_down: true propagate_down: true"))


def test_force_backward_reaches_the_data_but_not_the_labels() -> None:
    net = build("force_backward: true", DATA, LABEL, inner_product("a", "data", "a"), LOSS % "a")
    net.forward(data=[[1, 2, 3]] * 2, label=[0, 1])
    net.backward()
    assert net.blobs["data"].diff.any()
    assert not net.blobs["label"].diff.any()


def test_a_loss_in_place_is_refused() -> None:
    with pytest.raises(LayerError, match="loss cannot be computed in place"):
        build(DATA, LABEL, 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "data" bottom: "label" top: "data" }')


def test_a_loss_weight_on_a_top_in_place_is_refused() -> None:
    relu = 'layer { name: "r" type: "ReLU" bottom: "a" top: "a" loss_weight: %d }'
    with pytest.raises(LayerError, match=r"layer 'r'.*top\[0\] 'a' has loss_weight 2 and is also a bottom"):
        build(DATA, inner_product("a", "data", "a"), relu % 2)
    assert build(DATA, inner_product("a", "data", "a"), relu % 0).outputs == ["a"]


def test_outputs_are_what_nobody_reads() -> None:
    net = build(DATA, LABEL, inner_product("b", "data", "b"), inner_product("a", "data", "a"))
    assert net.outputs == ["a", "b", "label"]
    assert net.inputs == ["data", "label"]


def test_too_many_param_messages_are_refused() -> None:
    with pytest.raises(LayerError, match="'param' is given 3 times, but the layer has 2 parameter blobs"):
        build(DATA, inner_product("a", "data", "a", extra="param {} param {} param {}"))
