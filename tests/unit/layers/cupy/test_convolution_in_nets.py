"""Convolutions and the ReLU behind them, in nets on the simulated GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.cudnn.runner import CudnnRunner
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from tests.stand_in_cudnn import stand_in_cudnn
from tests.unit.layers.cupy.products import ROUNDING

NET = """
name: "net"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 3 dim: 4 dim: 6 dim: 6 }} }} }}
layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 3 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 {bias} weight_filler {{ type: "msra" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param {{ negative_slope: {slope} }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param {{ num_output: 8 kernel_size: 3 stride: 2 group: 2 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


@pytest.fixture
def refusals(simulated_gpu: Any) -> Iterator[list[Any]]:
    """What the stand-in for cuDNN asks whether it has engines."""
    cudnn = stand_in_cudnn()
    yield cudnn.refusals
    cudnn.refusals.clear()


def passes(context: LayerContext, text: str) -> tuple[list[float], dict[str, Any]]:
    """The losses of two passes over a net, of which the second adds to the gradients of the first, and these."""
    net = Net(parse_prototxt(text, NetParameter), context)
    random = np.random.default_rng(6)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.normal(0.1, 0.3, size=blob.shape)
    net.blobs["data"].data[...] = random.normal(size=net.blobs["data"].shape)
    net.blobs["label"].data[...] = [0, 1, 2]
    losses = []
    for _ in range(2):
        losses.append(net.forward_from_to())
        net.backward_from_to()
    named = [(f"{name} {index}", blob) for name, blobs in net.params.items() for index, blob in enumerate(blobs)]
    return losses, {name: blob.diff.copy() for name, blob in named}


@pytest.mark.parametrize("precision", list(ROUNDING))
@pytest.mark.parametrize(("slope", "bias"), [(0, ""), (0.25, ""), (-0.5, ""), (0, "bias_term: false")])
def test_with_the_relu_behind_it(slope: float, bias: str, precision: str) -> None:
    text = NET.format(slope=slope, bias=bias)
    expected = passes(LayerContext(create_backend("numpy"), TRAIN, dtype=np.float64), text)
    found = passes(LayerContext(CupyBackend(precision), TRAIN), text)
    assert found[0] == pytest.approx(expected[0], rel=ROUNDING[precision])
    for name, diff in expected[1].items():
        limit = 5 * ROUNDING[precision] * max(float(np.abs(diff).max()), 0.1)
        np.testing.assert_allclose(found[1][name], diff, rtol=0, atol=limit, err_msg=name)


def test_bias_and_relu_are_cudnns_where_it_has_as_good_kernels(
    simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_cudnn()  # what is expected of the small net below
    ends: list[str] = []
    run = CudnnRunner.run
    monkeypatch.setattr(
        CudnnRunner,
        "run",
        lambda self, task, arrays: (ends.append(task.key.split(" (")[0]), run(self, task, arrays))[1],
    )
    for precision, slope, expected in (
        ("bfloat16", 0, ["fprop bias relu bfloat16 channels last"] * 2),
        (
            "tf32",
            0.25,
            ["fprop bias float32 channels last", "fprop float32 channels last"],
        ),  # one with, one without groups
        ("float32", 0, ["fprop float32 plain"] * 2),
    ):
        ends.clear()
        passes(LayerContext(CupyBackend(precision), TRAIN), NET.format(slope=slope, bias=""))
        assert [end for end in ends if "fprop" in end] == expected * 2


@pytest.mark.parametrize("refused", ["relu", "bias"])
def test_bias_and_relu_that_cudnn_refuses(refused: str, refusals: list[Any]) -> None:
    text = NET.format(slope=0, bias="")
    expected = passes(LayerContext(CupyBackend("tf32"), TRAIN), text)
    refusals.append(lambda steps: "a test" if refused in steps else None)
    found = passes(LayerContext(CupyBackend("tf32"), TRAIN), text)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_runs_give_the_same_bits(precision: str) -> None:
    text = NET.format(slope=0, bias="")
    first, second = (passes(LayerContext(CupyBackend(precision), TRAIN), text) for _ in range(2))
    assert first[0] == second[0]
    for name, diff in first[1].items():
        assert diff.tobytes() == second[1][name].tobytes(), name
