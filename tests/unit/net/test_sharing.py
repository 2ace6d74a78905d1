"""Residual nets whose blobs are one block of memory compute the bits of those that have one for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.proto import NetParameter, SolverParameter, parse_prototxt
from paratrain.solvers import NetOptions, Solver, create_solver
from tests.optional import need_onednn


@pytest.fixture(autouse=True)
def _onednn() -> None:
    need_onednn()


def convolution(name: str, bottom: str, channels: int, *, relu: bool) -> str:
    """A convolution, BatchNorm and Scale in place, perhaps a ReLU."""
    text = f"""
    layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{
      num_output: {channels} kernel_size: 3 pad: 1 bias_term: false weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "{name}_norm" type: "BatchNorm" bottom: "{name}" top: "{name}" }}
    layer {{ name: "{name}_scale" type: "Scale" bottom: "{name}" top: "{name}" scale_param {{ bias_term: true }} }}
    """
    return text + (f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}' if relu else "")


def residual_net(channels: int) -> str:
    """A block with a convolution beside it, then two whose shortcut is the sum before."""
    text = """layer { name: "data" type: "Input" top: "data" top: "target"
      input_param { shape { dim: 4 dim: 3 dim: 6 dim: 5 } shape { dim: 4 dim: 3 } } }"""
    text += convolution("stem", "data", channels, relu=True)
    bottom, shortcut = "stem", "beside"
    text += convolution("beside", "stem", channels, relu=False)
    for block in ("1", "2", "3"):
        text += convolution(f"a{block}", bottom, channels, relu=True)
        text += convolution(f"b{block}", f"a{block}", channels, relu=False)
        bottom = f"sum{block}"
        text += f'layer {{ name: "{bottom}" type: "Eltwise" bottom: "{shortcut}" bottom: "b{block}" top: "{bottom}" }}'
        text += f'layer {{ name: "{bottom}_relu" type: "ReLU" bottom: "{bottom}" top: "{bottom}" }}'
        shortcut = bottom
    return (
        text
        + """
    layer { name: "ip" type: "InnerProduct" bottom: "sum3" top: "ip"
      inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
    """
    )


def make_solver(text: str, *, plans: bool, precision: str = "float32") -> Solver:
    parameter = SolverParameter(
        base_lr=0.01, lr_policy="fixed", momentum=0.9, max_iter=99, snapshot_after_train=False,
        net_param=parse_prototxt(text, NetParameter),
    )  # fmt: skip
    backend = create_backend("onednn", precision)
    solver = create_solver(parameter, backend=backend, seed=1, net_options=NetOptions(plans_memory=plans))
    for name in ("data", "target"):
        blob = solver.net.blobs[name]
        blob.data[...] = np.random.default_rng(3).normal(size=blob.shape)
    return solver


def both(text: str, precision: str = "float32") -> tuple[Solver, Solver]:
    """A solver whose blobs have memory of their own, and one whose do not."""
    return make_solver(text, plans=False, precision=precision), make_solver(text, plans=True, precision=precision)


def assert_same(plain: Solver, sharing: Solver) -> None:
    for name in ("data", "diff", "statistics"):
        found, expected = (getattr(solver.net.parameters, name).host() for solver in (sharing, plain))
        assert np.array_equal(found, expected) and np.isfinite(expected).all(), name
    assert sharing.loss == plain.loss


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels", [16, 20])
def test_same_bits(channels: int, precision: str) -> None:
    plain, sharing = both(residual_net(channels), precision)
    for _ in range(3):
        for solver in (plain, sharing):
            solver.step(1)
        assert_same(plain, sharing)


def test_what_shares() -> None:
    sharing = make_solver(residual_net(16), plans=True)
    sharing.step(2)
    net = sharing.net
    blobs, layers = net.blobs, dict(zip(net.layer_names, net.layers, strict=True))
    for block in ("1", "2", "3"):
        assert blobs[f"b{block}"].diff_memory is not blobs[f"sum{block}"].diff_memory
        layer: Any = layers[f"sum{block}"]
        assert layer.receiver is layers[f"b{block}_scale"] and layer.hands_over and layer.receiver.handed is None
    # One gradient goes from the last sum to the first, and there to the convolution beside.
    way = {id(blobs[name].diff_memory) for name in ("sum3", "sum2", "sum1", "beside")}
    assert len(way) == 1


def test_passes_over_some_layers_and_other_batches() -> None:
    plain, sharing = both(residual_net(16))
    for batch in (4, 2, 4):
        for solver in (plain, sharing):
            net = solver.net
            for name in ("data", "target"):
                blob = net.blobs[name]
                blob.reshape(batch, *blob.shape[1:])
                blob.data[...] = np.random.default_rng(batch).normal(size=blob.shape)
            solver.step(1)
            cut = net.layer_names.index("b2_scale")
            net.clear_param_diffs()
            net.forward_from_to()
            net.backward_from_to(None, cut + 1)
            net.backward_from_to(cut, 0)
        assert_same(plain, sharing)


def test_debug_info_in_between(caplog: pytest.LogCaptureFixture) -> None:
    plain, sharing = both(residual_net(16))
    said = []
    for solver in (plain, sharing):
        caplog.clear()
        with caplog.at_level("INFO", logger="paratrain.net.debug"):
            for debug_info in (False, True, False):
                solver.net.debug_info = debug_info
                solver.net.clear_param_diffs()
                solver.net.forward_from_to()
                solver.net.backward_from_to()
        said.append([record.getMessage() for record in caplog.records if record.name == "paratrain.net.debug"])
    assert_same(plain, sharing)
    assert said[0] == said[1] and len(said[0]) > 20


def test_layer_by_layer_every_gradient_is_in_its_place() -> None:
    """As whoever looks for a gradient that is not finite runs them."""
    sharing = make_solver(residual_net(16), plans=True)
    sharing.step(2)
    net, plan = sharing.net, sharing.net.memory_plan
    assert plan is not None
    plan.restore()
    for index in reversed(range(net.layer_names.index("sum2"), len(net.layers))):
        net.backward_layer(index)
    expected = net.blobs["sum2"].read_diff(None).copy()
    assert np.any(expected)
    bottoms = net.bottoms[net.layer_names.index("sum2")]
    assert all(np.array_equal(blob.read_diff(None), expected) for blob in bottoms)
