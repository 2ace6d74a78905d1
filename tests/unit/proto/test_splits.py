"""Split layers: names, order, loss weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.errors import NetError
from paratrain.proto import (
    NetParameter,
    NetState,
    Phase,
    filter_net,
    insert_splits,
    parse_prototxt,
    read_prototxt,
    upgrade_net,
)
from tests.paths import GOLDEN

NETS = sorted((GOLDEN / "nets").glob("*.json"))


def split(text: str) -> list[str]:
    """Each layer after splitting as "name: bottoms -> tops [loss weights]"."""
    net = insert_splits(parse_prototxt(text, NetParameter))
    return [
        f"{layer.name}: {' '.join(layer.bottom)} -> {' '.join(layer.top)}"
        + (f" {[round(weight, 3) for weight in layer.loss_weight]}" if layer.loss_weight else "")
        for layer in net.layer
    ]


@pytest.mark.skipif(not NETS, reason=f"no nets at {GOLDEN / 'nets'}")
@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_layers_are_caffes(path: Path, phase: str) -> None:
    recorded = json.loads(path.read_text())
    if phase not in recorded:
        pytest.skip(f"{path.stem} was not recorded in {phase}")
    net = upgrade_net(read_prototxt(path.with_suffix(".prototxt"), NetParameter))
    result = insert_splits(filter_net(net, NetState(phase=Phase.Value(phase))))
    found = [{"name": x.name, "type": x.type, "bottom": list(x.bottom), "top": list(x.top)} for x in result.layer]
    assert found == recorded[phase]["layers"]


def test_a_blob_used_twice() -> None:
    assert split("""
        layer { name: "data" top: "x" top: "label" }
        layer { name: "a" bottom: "label" bottom: "x" top: "y" }
        layer { name: "b" bottom: "y" bottom: "label" }
    """) == [
        "data:  -> x label",
        "label_data_1_split: label -> label_data_1_split_0 label_data_1_split_1",
        "a: label_data_1_split_0 x -> y",
        "b: y label_data_1_split_1 -> ",
    ]  # fmt: skip


def test_one_layer_reading_a_blob_twice() -> None:
    assert split('layer { name: "d" top: "x" } layer { name: "s" bottom: "x" bottom: "x" top: "y" }') == [
        "d:  -> x",
        "x_d_0_split: x -> x_d_0_split_0 x_d_0_split_1",
        "s: x_d_0_split_0 x_d_0_split_1 -> y",
    ]


def test_in_place_layers_make_a_new_version() -> None:
    assert split("""
        layer { name: "d" top: "x" }
        layer { name: "relu" bottom: "x" top: "x" }
        layer { name: "a" bottom: "x" top: "a" }
        layer { name: "b" bottom: "x" top: "b" }
    """) == [
        "d:  -> x",
        "relu: x -> x",
        "x_relu_0_split: x -> x_relu_0_split_0 x_relu_0_split_1",
        "a: x_relu_0_split_0 -> a",
        "b: x_relu_0_split_1 -> b",
    ]  # fmt: skip


def test_a_blob_used_before_and_in_place() -> None:
    assert split("""
        layer { name: "d" top: "x" }
        layer { name: "a" bottom: "x" top: "a" }
        layer { name: "relu" bottom: "x" top: "x" }
        layer { name: "b" bottom: "x" top: "b" }
    """) == [
        "d:  -> x",
        "x_d_0_split: x -> x_d_0_split_0 x_d_0_split_1",
        "a: x_d_0_split_0 -> a",
        "relu: x_d_0_split_1 -> x",
        "b: x -> b",
    ]  # fmt: skip


def test_a_loss_weight_is_the_first_use_and_moves_to_the_split() -> None:
    assert split("""
        layer { name: "d" top: "x" }
        layer { name: "l" bottom: "x" top: "loss" top: "p" loss_weight: 0.5 loss_weight: 2 }
        layer { name: "s" bottom: "loss" top: "s" }
    """) == [
        "d:  -> x",
        "l: x -> loss p [0.0, 2.0]",
        "loss_l_0_split: loss -> loss_l_0_split_0 loss_l_0_split_1 [0.5, 0.0]",
        "s: loss_l_0_split_1 -> s",
    ]  # fmt: skip


def test_a_loss_weight_alone_or_of_zero_needs_no_split() -> None:
    assert split("""
        layer { name: "d" top: "x" loss_weight: 0 }
        layer { name: "l" bottom: "x" top: "loss" loss_weight: 0.5 }
    """) == ["d:  -> x [0.0]", "l: x -> loss [0.5]"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer { name: "d" top: "data" } layer { name: "c" type: "ReLU" bottom: "dat" }', "did you mean 'data'?"),
        ('layer { name: "c" type: "ReLU" bottom: "dat" }', "there is no layer above it"),
        (
            'layer { name: "c" type: "ReLU" bottom: "dat" } layer { name: "d" top: "dat" }',
            "layer 'd' makes it, but comes later",
        ),
        (
            'layer { name: "d" top: "q" } layer { name: "c" type: "ReLU" bottom: "dat" }',
            "the blobs made above it are q",
        ),
    ],
)
def test_unknown_bottom(text: str, message: str) -> None:
    with pytest.raises(NetError) as caught:
        split(text)
    assert "layer 'c' (ReLU): bottom 0, 'dat', is made by no layer above it" in str(caught.value)
    assert message in str(caught.value)


@st.composite
def nets(draw: st.DrawFn) -> NetParameter:
    net = NetParameter()
    known: list[str] = []
    for index in range(draw(st.integers(1, 8))):
        bottoms = draw(st.lists(st.sampled_from(known), max_size=3)) if known else []
        in_place = draw(st.sampled_from(bottoms)) if bottoms and draw(st.booleans()) else None
        tops = [in_place] if in_place else [f"b{index}_{top}" for top in range(draw(st.integers(0, 2)))]
        weights = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), max_size=len(tops)))
        net.layer.add(name=f"l{index}", bottom=bottoms, top=tops, loss_weight=weights)
        known += [top for top in tops if top not in known]
    return net


@given(nets())
def test_every_version_of_a_blob_is_used_at_most_once_and_the_originals_stay(net: NetParameter) -> None:
    before = net.SerializeToString()
    result = insert_splits(net)
    assert net.SerializeToString() == before
    assert insert_splits(result) == result
    # A plain walk: which version of which original blob each bottom is, with the splits followed back.
    originals = [layer for layer in result.layer if layer.type != "Split"]
    assert [layer.name for layer in originals] == [layer.name for layer in net.layer]
    version, origin, used = {}, {}, set()
    for layer in result.layer:
        sources = []
        for blob in layer.bottom:
            assert (blob, version[blob]) not in used
            used.add((blob, version[blob]))
            sources.append(origin[blob])
        for blob in layer.top:
            version[blob] = version.get(blob, 0) + 1
            origin[blob] = sources[0] if layer.type == "Split" else (layer.name, blob)
        if layer.type != "Split":
            assert sources == plain_sources(net, layer.name)
    # Loss weights are neither lost nor doubled.
    assert sum(sum(layer.loss_weight) for layer in result.layer) == sum(sum(layer.loss_weight) for layer in net.layer)


def plain_sources(net: NetParameter, name: str) -> list[tuple[str, str]]:
    maker: dict[str, str] = {}
    for layer in net.layer:
        if layer.name == name:
            return [(maker[blob], blob) for blob in layer.bottom]
        maker.update(dict.fromkeys(layer.top, layer.name))
    raise AssertionError(name)
