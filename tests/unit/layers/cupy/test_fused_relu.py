"""ReLUs that are computed by the layer before, forward and backward, on the simulated GPU: nobody can tell."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends import create_backend
from paratrain.backends.base import Backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.layers.base import LayerContext
from paratrain.layers.fused_relu import FusedReLU
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt

TEXT = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 4 dim: 3 dim: 5 dim: 4 } shape { dim: 4 } } }
layer { name: "up" type: "Deconvolution" bottom: "data" top: "up"
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "relu1" type: "ReLU" bottom: "up" top: "up" relu_param { negative_slope: 0.25 } }
layer { name: "ip1" type: "InnerProduct" bottom: "up" top: "ip1"
  inner_product_param { num_output: 24 weight_filler { type: "xavier" } bias_filler { value: -0.1 } } }
layer { name: "relu2" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } bias_term: false } }
layer { name: "relu3" type: "ReLU" bottom: "ip2" top: "ip2" }
layer { name: "ip3" type: "InnerProduct" bottom: "ip2" top: "ip3"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip3" bottom: "label" top: "loss" }
"""
ROUNDING = {"float32": 1e-5, "bfloat16": 3e-2}


def build(backend: Backend, dtype: npt.DTypeLike = np.float32) -> Net:
    net = Net(parse_prototxt(TEXT, NetParameter), LayerContext(backend, TRAIN, dtype=dtype, seed=2))
    random = np.random.default_rng(5)
    net.blobs["data"].data[...] = random.normal(size=net.blobs["data"].shape).astype(np.float32)
    net.blobs["label"].data[...] = random.integers(0, 5, 4)
    return net


def relus(net: Net) -> list[FusedReLU]:
    return [cast(FusedReLU, net.layer_dict[name]) for name in ("relu1", "relu2", "relu3")]


def gradients(net: Net) -> Any:
    return net.parameters.diff.host().copy()


def step(net: Net) -> Any:
    net.clear_param_diffs()
    net.forward_from_to()
    net.backward_from_to()
    return gradients(net)


@pytest.mark.parametrize("precision", list(ROUNDING))
def test_every_blob_and_gradient_agrees_with_doubles_of_numpy(precision: str) -> None:
    reference, net = build(create_backend("numpy"), np.float64), build(CupyBackend(precision))
    reference.parameters.data.mutable_host()[...] = net.parameters.data.host()
    limit = ROUNDING[precision]
    np.testing.assert_allclose(step(net), step(reference), rtol=limit, atol=limit)
    assert all(relu.leaves_backward for relu in relus(net))
    for name, blob in net.blobs.items():
        for half in ("data", "diff"):
            expected = getattr(reference.blobs[name], half)
            np.testing.assert_allclose(getattr(blob, half), expected, rtol=limit, atol=limit, err_msg=f"{name} {half}")


def test_a_relu_costs_no_kernel_of_its_own() -> None:
    import simulated

    def kernels(net: Net) -> int:
        before = simulated.counts["launch"]
        step(net)
        return int(simulated.counts["launch"] - before)

    net = build(CupyBackend())
    step(net)
    fused = kernels(net)
    net.debug_info = True
    # ip2 has no bias: it launches a kernel for the ReLU forward and one backward. The others have to launch theirs anyway.
    assert kernels(net) - fused == 4


def test_passes_over_some_layers_show_what_layers_make() -> None:
    net = build(CupyBackend())
    expected = step(net)
    net.forward(end="ip1")
    assert (net.blobs["ip1"].data < 0).any(), "the blob as it is before the ReLU"
    net.forward(start="relu2")
    net.clear_param_diffs()
    net.backward_from_to()
    np.testing.assert_allclose(gradients(net), expected, rtol=1e-6, atol=1e-7)

    step(net)  # whole again
    net.clear_param_diffs()
    names = net.layer_names
    net.backward_from_to(end=names.index("relu2"))
    assert not relus(net)[1].leaves_backward
    assert (net.blobs["ip1"].diff[net.blobs["ip1"].data == 0] == 0).all(), "gone back through the ReLU"
    net.backward_from_to(start=names.index("ip1"))
    np.testing.assert_allclose(gradients(net), expected, rtol=1e-6, atol=1e-7)

    net.forward_from_to()
    net.clear_param_diffs()
    net.blobs["ip1"].diff[...] = 1
    net.backward(start="ip1")  # from a gradient of the script's, which the ReLU does not see
    assert net.params["ip1"][1].diff.tolist() == [4.0] * 24


def test_two_passes_give_the_same_bits() -> None:
    first, second = (step(build(CupyBackend("bfloat16"))) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.any()
