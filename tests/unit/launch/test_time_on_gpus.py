"""Times of layers on the simulated GPU: by events, with the kernels' names, beside its own peak."""

from __future__ import annotations

import importlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from paratrain.backends import create_backend
from paratrain.launch import compare_gpu
from paratrain.launch.cli import main
from paratrain.launch.compare import compare, kernels_of, measure_peak, time_layers
from paratrain.launch.compare_table import comparison_values, format_comparison
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from paratrain.solvers.ranks import Alone
from tests.simulated_gpu_path import simulated_gpu  # noqa: F401

NET = """
layer { name: "in" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "tile" type: "Tile" bottom: "pool" top: "tile" tile_param { tiles: 2 } }
layer { name: "flat" type: "Flatten" bottom: "tile" top: "flat" }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip" inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def open_net(name: str, precision: str = "float32") -> Net:
    return Net(parse_prototxt(NET, NetParameter), LayerContext(create_backend(name, precision), TRAIN, seed=1))


@pytest.fixture(autouse=True)
def small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_LEAST_SIZE", 16), ("_MOST_SIZE", 64), ("_LONG_ENOUGH_S", 1.0)):
        monkeypatch.setattr(compare_gpu, name, value)
    monkeypatch.setattr("paratrain.launch.compare._PEAK_SIZE", 64)
    monkeypatch.setattr("paratrain.launch.compare._PEAK_S", 0.0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kernels_are_named(precision: str) -> None:
    net = open_net("cupy", precision)
    net.forward_from_to()
    net.backward_from_to()
    kernels = dict(zip(net.layer_names, kernels_of(net), strict=True))
    assert kernels["in"] == kernels["flat"] == ""
    assert "cuDNN " in kernels["conv"]
    assert kernels["relu"] == "with conv"
    assert kernels["norm"].startswith("normalization")
    assert kernels["scale"] == "with norm"
    assert "pooling" in kernels["pool"]
    assert kernels["tile"] == ("cupy" if precision == "float32" else "arrange, cupy")
    assert "cuBLAS" in kernels["ip"]
    assert "softmax" in kernels["loss"]


def test_layers_are_timed_without_waiting_between_them() -> None:
    counts: Any = importlib.import_module("simulated").counts
    net = open_net("cupy")
    net.forward_from_to()
    net.backward_from_to()
    before = counts["synchronize"]
    for index in range(len(net.layers)):
        net.forward_layer(index)
    for index in reversed(range(len(net.layers))):
        net.backward_layer(index)
    untimed = counts["synchronize"] - before
    forward_s, backward_s = time_layers(net)
    assert counts["synchronize"] - before <= 2 * untimed + 1  # the last event
    assert len(forward_s) == len(backward_s) == len(net.layers)
    assert min(*forward_s, *backward_s) >= 0
    assert forward_s[1] > 0
    timer = net.context.backend.timer()
    assert timer.seconds() == []
    assert 1e3 < measure_peak(net) < 1e15


def test_backends_side_by_side() -> None:
    found = compare(lambda name: open_net(name, "float32"), ["cupy", "numpy"], Alone(), 2)
    table = "\n".join(format_comparison(found))
    assert re.search(r"Peak: \S+ GFLOP/s, of a big matrix product in float32\.", table)
    assert re.search(r"Peak of cupy: \S+ GFLOP/s, of a big matrix product in float32\.", table)
    values = json.loads(json.dumps(comparison_values(found)))
    assert values["peak_flops_of"]["numpy"] == values["peak_flops"]
    assert values["peak_flops_of"]["cupy"] > 0
    (conv,) = [layer for layer in values["layers"] if layer["name"] == "conv"]
    assert conv["backends"]["cupy"]["flops"] > 0


@pytest.mark.parametrize("words", [(), ("--compare", "--backend", "cupy", "--precision", "bfloat16")])
def test_the_command(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    with caplog.at_level(logging.INFO):
        assert main(["time", "-model", str(tmp_path / "net.prototxt"), "-gpu", "0", "-iterations", "2", *words]) == 0
    printed = capsys.readouterr()
    if words:
        assert re.search(r"^conv +Convolution +[\d.]+ +[\d.]+ +[\d.]+ +\d+% +cuDNN .*bias", printed.out, re.MULTILINE)
        assert "of a big matrix product in bfloat16" in printed.out
    else:
        assert "Average Forward-Backward: " in printed.err + caplog.text
