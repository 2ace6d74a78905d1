"""Pictures of nets: what stands in them, as text of an SVG and of graphviz's language."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from paratrain.check.caffe_graph import build_caffe_graph
from paratrain.errors import NetError, ParatrainError
from paratrain.proto import TEST, TRAIN, NetParameter, parse_prototxt, read_prototxt
from paratrain.pycaffe import draw

NET = """
name: "small \\"net\\""
layer { name: "train" type: "Data" top: "data" data_param { batch_size: 64 } include { phase: TRAIN } }
layer { name: "test" type: "Data" top: "data" data_param { batch_size: 10 } include { phase: TEST stage: "x" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
        convolution_param { num_output: 20 kernel_h: 5 kernel_w: 3 stride: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 pool: AVE pad: 1 } }
layer { name: "all" type: "Pooling" bottom: "pool" top: "all" pooling_param { global_pooling: true } exclude { phase: TRAIN } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 10 } }
"""


@pytest.fixture
def net() -> NetParameter:
    return parse_prototxt(NET, NetParameter)


def test_layers_blobs_and_arrows_between_them(net: NetParameter) -> None:
    graph = build_caffe_graph(net, "TB", display_lrm=True)
    names = [("blob " if node.is_blob else "") + node.lines[0] for node in graph.nodes]
    arrows = {(names[edge.start], names[edge.stop], edge.label, edge.is_both_ways) for edge in graph.edges}
    assert arrows == {
        ("train", "blob data", "", False), ("test", "blob data", "", False), ("blob data", "conv", "", False),
        ("conv", "blob conv", "20", False), ("blob conv", "relu", "", True), ("blob conv", "pool", "", False),
        ("pool", "blob pool", "", False), ("blob pool", "all", "", False), ("all", "blob all", "", False),
        ("blob pool", "ip", "", False), ("ip", "blob ip", "10", False),
    }  # fmt: skip
    assert all(edge.start < edge.stop for edge in graph.edges)
    lines = {node.lines[0]: node.lines[1:] for node in graph.nodes if not node.is_blob}
    assert lines["conv"] == ("(Convolution)", "kernel size: 5 x 3", "stride: 2", "pad: 0", "lr mult: 1, 2")
    assert lines["pool"] == ("(AVE Pooling)", "kernel size: 3", "stride: 1", "pad: 1")
    assert lines["all"] == ("(MAX Pooling)", "global")
    assert lines["train"] == ("(Data)", "batch: 64")
    assert lines["ip"] == ("(InnerProduct)", "lr mult: 1")


def test_one_phase_only(net: NetParameter) -> None:
    def layers(phase: int) -> set[str]:
        return {node.lines[0] for node in build_caffe_graph(net, phase=phase).nodes if not node.is_blob}

    assert layers(TRAIN) == {"train", "conv", "relu", "pool", "ip"}
    assert layers(TEST) == {"test", "conv", "relu", "pool", "all", "ip"}
    net.layer[2].include.add(phase=TRAIN)
    net.layer[2].exclude.add(phase=TEST)
    with pytest.raises(NetError, match="'conv' .*include rules and exclude rules"):
        layers(TRAIN)


@pytest.mark.parametrize("direction", ["LR", "RL", "TB", "BT"])
def test_the_svg_has_every_text_and_the_data_flows_as_it_says(net: NetParameter, direction: str) -> None:
    svg = draw.draw_net(net, direction, "svg").decode()
    shown = {html.unescape(text) for text in re.findall(r">([^<>\n]+)</text>", svg)}
    assert {
        "train",
        "(Data)",
        "batch: 64",
        "conv",
        "(Convolution)",
        "kernel size: 5 x 3",
        "20",
        "relu",
        "(ReLU)",
        "ip",
    } <= shown
    places = {
        html.unescape(text): (float(x), float(y))
        for x, y, text in re.findall(r'<text [^>]*? x="([-\d.]+)" y="([-\d.]+)"[^>]*>([^<]+)</text>', svg)
    }
    (x0, y0), (x1, y1) = places["(Data)"], places["(InnerProduct)"]
    along = {"LR": x1 - x0, "RL": x0 - x1, "TB": y1 - y0, "BT": y0 - y1}
    assert along[direction] == max(along.values()) > 0
    assert svg == draw.draw_net(net, direction, "svg").decode()


def test_files_of_every_kind(tmp_path: Path, net: NetParameter) -> None:
    for ending, signature in (
        ("png", b"\x89PNG"),
        ("pdf", b"%PDF"),
        ("jpg", b"\xff\xd8"),
        ("SVG", b"<?xml"),
        ("dot", b"digraph"),
    ):
        draw.draw_net_to_file(net, str(tmp_path / f"net.{ending}"))
        assert (tmp_path / f"net.{ending}").read_bytes().startswith(signature)
    draw.draw_net_to_file(net, tmp_path / "small.png", "TB", TRAIN, True)
    assert (tmp_path / "small.png").read_bytes() != (tmp_path / "net.png").read_bytes()
    with pytest.raises(ParatrainError, match="drawn as png, svg, .* not as 'gif'"):
        draw.draw_net_to_file(net, tmp_path / "net.gif")
    with pytest.raises(ParatrainError, match=r"the name must end in \.png"):
        draw.draw_net_to_file(net, tmp_path / "net")
    with pytest.raises(NetError, match="rankdir 'XY'"):
        draw.draw_net(net, "XY")


def test_the_graph_in_graphvizs_language(tmp_path: Path, net: NetParameter) -> None:
    graph = draw.get_pydot_graph(net, "LR", label_edges=False)
    text = graph.to_string()
    assert (
        text.startswith('digraph "small \\"net\\"" {\n  rankdir=LR;\n')
        and "dir=both" in text
        and 'label="20"' not in text
    )
    assert 'label="conv\\n(Convolution)\\nkernel size: 5 x 3\\nstride: 2\\npad: 0", shape=box' in text
    assert graph.create(format="dot").decode() == graph.create(prog="dot", format="raw").decode() == text
    assert graph.create_svg().startswith(b"<?xml") and graph.create_png().startswith(b"\x89PNG")
    assert (
        graph.write_svg(tmp_path / "a.svg") and graph.write_png(tmp_path / "a.png") and graph.write(tmp_path / "a.dot")
    )
    assert (tmp_path / "a.dot").read_text() == text
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg", "-o", tmp_path / "b.svg", tmp_path / "a.dot"], check=True)


def test_nets_of_old_files_and_empty_ones(golden: Path) -> None:
    old = parse_prototxt(
        'layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" } input: "data" input_dim: [1, 3, 9, 9]',
        NetParameter,
    )
    assert [node.lines[0] for node in build_caffe_graph(old).nodes] == ["input", "data", "c", "c"]
    assert draw.draw_net(NetParameter(), "TB", "svg").startswith(b"<?xml")
    lenet = read_prototxt(golden / "nets" / "lenet.prototxt", NetParameter)
    assert len(build_caffe_graph(lenet).nodes) == 11 + 10
