"""Nets in which layers on oneDNN meet what they could take for something else, against the numpy backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.layers import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from tests.optional import need_onednn

INPUT = """
layer { name: "input" type: "Input" top: "data" top: "target"
  input_param { shape { dim: 4 dim: 16 dim: 6 dim: 5 } shape { dim: 4 dim: 3 } } }
"""
CONVOLUTION = """
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
  convolution_param { num_output: 16 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "gaussian" std: 0.2 } } }
"""
PRODUCT = """
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 16 bias_term: false weight_filler { type: "gaussian" std: 0.1 } } }
"""
GLOBAL_POOLING = """
layer { name: "pool" type: "Pooling" bottom: "data" top: "a" pooling_param { pool: AVE global_pooling: true } }
"""
FACTORS = 'scale_param { filler { type: "uniform" min: -1.5 max: 1.5 } bias_term: true }'
CHAIN = f"""
layer {{ name: "norm" type: "BatchNorm" bottom: "a" top: "a" }}
layer {{ name: "scale" type: "Scale" bottom: "a" top: "a" {FACTORS} }}
layer {{ name: "relu" type: "ReLU" bottom: "a" top: "a" }}
"""
LOSS = """
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""


@pytest.fixture(autouse=True)
def _onednn() -> None:
    need_onednn()


def agree(text: str, *passes: Callable[[Net], object]) -> None:
    """Run the same passes on both backends and compare all values and gradients."""
    nets: list[Net] = []
    for backend in ("numpy", "onednn"):
        context = LayerContext(create_backend(backend), TRAIN, seed=1, keeps_arrays=True)
        nets.append(Net(parse_prototxt("force_backward: true " + text, NetParameter), context))
        random = np.random.default_rng(2)
        for name in ("data", "target"):
            nets[-1].blobs[name].data[...] = random.normal(size=nets[-1].blobs[name].shape)
    nets[1].copy_trained_layers_from(nets[0].to_proto())
    for net in nets:
        for run in passes:
            run(net)
    plain, found = nets
    for name, blob in plain.blobs.items():
        close(found.blobs[name].data, blob.data, f"{name}.data")
        if name != "target":
            close(found.blobs[name].diff, blob.diff, f"{name}.diff")
    for name, blobs in plain.params.items():
        for index, blob in enumerate(blobs):
            close(found.params[name][index].data, blob.data, f"{name} {index}")
            close(found.params[name][index].diff, blob.diff, f"gradient of {name} {index}")


def close(found: object, expected: object, what: str) -> None:
    largest = max(float(np.abs(expected).max(initial=0)), 1e-3)  # type: ignore[call-overload]
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=1e-4, err_msg=what)  # type: ignore[operator]


def forward_and_backward(net: Net) -> None:
    net.forward()
    net.backward()


@pytest.mark.parametrize("first", [PRODUCT, GLOBAL_POOLING], ids=["vectors", "one pixel"])
@pytest.mark.parametrize("count", [2, 3])
def test_normalization_in_place_of_plain_arrays(first: str, count: int) -> None:
    """Sixteen channels in plain order have kernels: what backward reads must not be overwritten."""
    layers = CHAIN.split("layer")[1:]
    for kept in (layers[:1], layers[1:2], layers[:count]):
        agree(
            INPUT + first + "".join("layer" + layer for layer in kept) + LOSS,
            forward_and_backward,
            forward_and_backward,
        )


@pytest.mark.parametrize(
    "behind",
    [
        f'type: "Scale" {FACTORS}',
        'type: "Bias" bias_param { filler { type: "gaussian" std: 1 } }',
        'type: "Power" power_param { scale: -1 shift: 0.5 }',
        'type: "BatchNorm"',
    ],
)
def test_a_layer_in_place_on_the_top_of_a_relu(behind: str) -> None:
    """The ReLU's gradient depends on its bottom, whose signs the top does not show any more."""
    relu = 'layer { name: "relu" type: "ReLU" bottom: "b" top: "a" }'
    convolution = CONVOLUTION.replace('top: "a"', 'top: "b"')
    agree(
        INPUT + convolution + relu + f'layer {{ name: "behind" bottom: "a" top: "a" {behind} }}' + LOSS,
        forward_and_backward,
    )


@pytest.mark.parametrize("first", ["scale", "relu", "ip"])
def test_forward_again_from_within_a_chain(first: str) -> None:
    def change_and_run(net: Net) -> None:
        net.blobs["a"].data[...] = np.random.default_rng(5).normal(size=net.blobs["a"].shape)
        net.forward(start=first)
        net.backward()

    agree(INPUT + CONVOLUTION + CHAIN + LOSS, forward_and_backward, change_and_run, forward_and_backward)


@pytest.mark.parametrize("last", ["norm", "scale"])
def test_forward_again_up_to_within_a_chain(last: str) -> None:
    agree(
        INPUT + CONVOLUTION + CHAIN + LOSS,
        forward_and_backward,
        lambda net: net.forward(end=last),
        lambda net: net.backward(),
    )


def test_an_empty_batch_after_a_full_one() -> None:
    """Backward must not run the kernels of the batch before."""
    text = (
        INPUT
        + CONVOLUTION
        + 'layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }'
        + """
    layer { name: "pool" type: "Pooling" bottom: "a" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
      inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" loss_weight: 1 }
    """
    )

    def empty(net: Net) -> None:
        net.clear_param_diffs()
        net.blobs["data"].reshape(0, 16, 6, 5)
        forward_and_backward(net)

    agree(text, forward_and_backward, empty)


def test_a_gradient_that_a_script_writes_between_a_sum_and_a_split() -> None:
    """Going on below the sum, backward uses the gradients that the sum has passed on, not what its top's diff holds now."""
    text = INPUT + CONVOLUTION + CONVOLUTION.replace('"a"', '"b"').replace('"data"', '"a"')
    text += 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }' + LOSS.replace('"a"', '"sum"')

    def write_and_go_on(net: Net) -> None:
        net.blobs["sum"].diff[...] = 7
        net.backward(start="b")

    agree(text, forward_and_backward, write_and_go_on)
