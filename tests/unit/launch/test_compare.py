from __future__ import annotations

import json

import pytest

from paratrain.backends import create_backend
from paratrain.launch.compare import comparable_backends, compare, kernels_of, measure_peak
from paratrain.launch.compare_table import Comparison, LayerTimes, Timing, comparison_values, format_comparison
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from paratrain.solvers.ranks import Alone
from tests.optional import need_onednn

NET = """
layer { name: "in" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
        convolution_param { num_output: 5 kernel_size: 2 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "up" top: "ip" inner_product_param { num_output: 10 } param { lr_mult: 0 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def open_net(name: str) -> Net:
    return Net(parse_prototxt(NET, NetParameter), LayerContext(create_backend(name), TRAIN, seed=1))


@pytest.fixture
def no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.launch.compare.measure_peak", lambda net: 1e12)


def test_operations_are_those_of_the_geometries(no_peak: None) -> None:
    (_, conv, relu, up, ip, loss) = compare(open_net, ["numpy"], Alone(), 1).layers
    products = 4 * 16 * 6 * 6 * 3 * 3 * 3
    assert conv.forward_operations == 2 * products
    assert conv.backward_operations == 2 * products, "images get no gradient"
    assert up.forward_operations == 2 * (4 * 16 * 6 * 6) * (5 * 2 * 2)
    assert up.backward_operations == 2 * up.forward_operations
    assert ip.forward_operations == 2 * 4 * 10 * (5 * 7 * 7)
    assert ip.backward_operations == ip.forward_operations, "its weights are frozen"
    assert relu.forward_operations == loss.forward_operations == 0
    assert all(layer.timings["numpy"].forward_s > 0 for layer in (conv, up, ip))


def test_the_kernels_are_those_that_have_run(no_peak: None) -> None:
    need_onednn()
    found = compare(open_net, ["numpy", "onednn"], Alone(), 2)
    kernels = {layer.name: layer.timings["onednn"].kernels for layer in found.layers}
    assert kernels["in"] == ""
    assert kernels["relu"] == "with conv"
    for name in "conv", "ip":
        assert ":" in kernels[name], "oneDNN's names look like brgconv:avx2"
        assert "ref" not in kernels[name]
    assert {layer.timings["numpy"].kernels for layer in found.layers} == {"", "numpy"}


def test_a_layer_that_onednn_leaves_to_numpy_is_numpys() -> None:
    need_onednn()
    net = open_net("onednn")
    net.debug_info = True  # nothing is fused then
    net.forward_from_to()
    kernels = dict(zip(net.layer_names, kernels_of(net), strict=True))
    net.close()
    assert kernels["relu"] != "with conv"
    net = open_net("numpy")
    net.forward_from_to()
    assert kernels_of(net) == ["", *["numpy"] * 5]
    net.close()


def test_the_peak_is_that_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.launch.compare._PEAK_SIZE", 256)
    monkeypatch.setattr("paratrain.launch.compare._PEAK_S", 0.0)
    for name in comparable_backends():
        net = open_net(name)
        assert 1e7 < measure_peak(net) < 1e15
        net.close()


def example() -> Comparison:
    def timings(numpy: tuple[float, float], onednn: tuple[float, float], kernels: str) -> dict[str, Timing]:
        return {"numpy": Timing(*numpy, "numpy"), "onednn": Timing(*onednn, kernels)}

    layers = [
        LayerTimes("conv1", "Convolution", 10**9, 10**9, timings((0.02, 0.03), (0.01, 0.01), "brgconv:avx2")),
        LayerTimes("a_very_long_name_of/inception/of_a_layer", "ReLU", 0, 0, timings((0.01, 0), (0, 0), "with conv1")),
    ]
    return Comparison(("numpy", "onednn"), layers, {"numpy": 2e11, "onednn": 2e11}, rank_count=2)


def test_the_table() -> None:
    assert list(format_comparison(example())) == [
        "                                           numpy                                onednn",
        "layer                         type         forward  backward  GFLOP/s  of peak  forward  backward  GFLOP/s  of peak"
        "  kernels",
        "----------------------------  -----------  -------  --------  -------  -------  -------  --------  -------  -------"
        "  ------------",
        "conv1                         Convolution    20.00     30.00     40.0      20%    10.00     10.00    100.0      50%"
        "  brgconv:avx2",
        "a_very_long_n..on/of_a_layer  ReLU           10.00      0.00                       0.00      0.00                  "
        "  with conv1",
        "----------------------------  -----------  -------  --------  -------  -------  -------  --------  -------  -------"
        "  ------------",
        "total                                        30.00     30.00                      10.00     10.00",
        "",
        "Milliseconds, means over iterations and ranks. GFLOP/s: a product and a sum are two operations, forward and backward "
        "together.",
        "Peak: 200 GFLOP/s in each rank, of a big matrix product in float32.",
        "Forward and backward: onednn takes 20.00 ms, numpy 3 times as long.",
    ]


def test_the_values_for_json() -> None:
    values = json.loads(json.dumps(comparison_values(example())))
    assert values["peak_flops"] == 2e11
    assert values["total_s"] == {"numpy": pytest.approx(0.06), "onednn": 0.02}
    conv, relu = values["layers"]
    assert conv["backends"]["onednn"] == {
        "forward_s": 0.01, "backward_s": 0.01, "kernels": "brgconv:avx2", "flops": 1e11,
    }  # fmt: skip
    assert relu["backends"]["numpy"]["flops"] is None
