"""Gradients after clear_param_diffs: who writes first need not add, and nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends import create_backend
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, SolverParameter, parse_prototxt
from paratrain.solvers import create_solver
from tests.optional import need_onednn

# Two bottoms and two layers for one weight, groups, a transposed product, a frozen weight, a branch without a gradient.
TEXT = """
force_backward: {force}
layer {{ name: "data" type: "Input" top: "x" top: "z" top: "y"
  input_param {{ shape {{ dim: 4 dim: 4 dim: 6 dim: 6 }} shape {{ dim: 4 dim: 4 dim: 6 dim: 6 }} shape {{ dim: 4 }} }} }}
layer {{ name: "twice" type: "Convolution" bottom: "x" bottom: "z" top: "x1" top: "z1"
  convolution_param {{ num_output: 32 kernel_size: 3 group: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "x1" bottom: "z1" top: "s" }}
layer {{ name: "up" type: "Deconvolution" bottom: "s" top: "u"
  convolution_param {{ num_output: 16 kernel_size: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "frozen" type: "Convolution" bottom: "u" top: "f" param {{ lr_mult: 0 }}
  convolution_param {{ num_output: 16 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "scale" type: "Scale" bottom: "f" top: "f" scale_param {{ bias_term: true }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "f" top: "ip1"
  inner_product_param {{ num_output: 24 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "a" type: "InnerProduct" bottom: "ip1" top: "a" param {{ name: "w" }}
  inner_product_param {{ num_output: 24 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "b" type: "InnerProduct" bottom: "a" top: "b" param {{ name: "w" }}
  inner_product_param {{ num_output: 24 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "turned" type: "InnerProduct" bottom: "b" top: "t"
  inner_product_param {{ num_output: 5 transpose: true weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "idle" type: "InnerProduct" bottom: "b" top: "idle" inner_product_param {{ num_output: 3
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "silence" type: "Silence" bottom: "idle" }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "t" bottom: "y" top: "loss" }}
"""
Array = npt.NDArray[Any]


@pytest.fixture(params=["numpy", "onednn"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "onednn":
        need_onednn()
    return str(request.param)


def build(backend: str, *, force: bool = False, keeps_arrays: bool = False) -> Net:
    context = LayerContext(create_backend(backend), TRAIN, seed=2, keeps_arrays=keeps_arrays)
    net = Net(parse_prototxt(TEXT.format(force=str(force).lower()), NetParameter), context)
    fill(net)
    return net


def fill(net: Net) -> None:
    random = np.random.default_rng(5)
    for name in ("x", "z"):
        net.blobs[name].data[...] = random.normal(size=net.blobs[name].shape).astype(np.float32)
    net.blobs["y"].data[...] = random.integers(0, 5, 4)


def gradients(net: Net) -> list[Array]:
    return [entry.blob.diff.copy() for entry in net.parameters.learnable]


def spoil(net: Net) -> None:
    """Put something into all gradients that must not be seen any more."""
    net.parameters.diff.mutable_host()[...] = 1e6


def passes(net: Net, count: int = 1) -> list[Array]:
    """The gradients of so many passes after clearing them."""
    net.clear_param_diffs()
    for _ in range(count):
        net.forward_from_to()
        net.backward_from_to()
    return gradients(net)


def added(net: Net) -> list[Array]:
    """The same of one pass, where every layer adds to zeros."""
    net.clear_param_diffs()
    net.parameters.diff.settle()
    net.forward_from_to()
    net.backward_from_to()
    return gradients(net)


@pytest.mark.parametrize("force", [False, True])
def test_written_is_what_added_to_zeros_gives(backend: str, force: bool) -> None:
    net = build(backend, force=force)
    expected = added(net)
    spoil(net)
    found = passes(net)
    for entry, one, other in zip(net.parameters.learnable, found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=entry.label)
    by_label = {entry.label: one for entry, one in zip(net.parameters.learnable, found, strict=True)}
    assert not by_label["idle[0]"].any() and not by_label["idle[1]"].any(), "no gradient flows there"
    assert by_label["twice[0]"].any() and by_label["a[0]"].any() and by_label["turned[0]"].any()


def test_later_passes_add(backend: str) -> None:
    net = build(backend)
    once = passes(net)
    spoil(net)
    for one, three in zip(once, passes(net, 3), strict=True):
        np.testing.assert_allclose(three, 3 * one, rtol=1e-4, atol=1e-5)


def test_two_runs_give_the_same_bits(backend: str) -> None:
    net = build(backend)
    first = passes(net)
    spoil(net)
    assert all(np.array_equal(one, other) for one, other in zip(first, passes(net), strict=True))


def test_layers_that_do_not_run_leave_zeros(backend: str) -> None:
    net = build(backend)
    spoil(net)
    net.forward_from_to()
    net.clear_param_diffs()
    net.backward_from_to(end=net.layer_names.index("ip1"))
    assert not net.params["twice"][0].diff.any() and not net.params["up"][1].diff.any()
    assert net.params["ip1"][0].diff.any()


def test_all_readers_see_zeros_after_clearing(backend: str) -> None:
    net = build(backend)
    readers: dict[str, Callable[[], Array]] = {
        "the flat array": lambda: net.parameters.diff.host(),
        "a blob": lambda: net.params["ip1"][0].diff,
        "a reading backend": lambda: net.params["ip1"][0].read_diff(None),
        "a snapshot": lambda: np.array(net.to_proto(write_diff=True).layer[6].blobs[0].diff),
    }
    for name, read in readers.items():
        spoil(net)
        net.clear_param_diffs()
        values = read()
        assert values.size and not values.any(), name


def test_arrays_that_scripts_hold_are_cleared_at_once(backend: str) -> None:
    net = build(backend, keeps_arrays=True)
    held = {entry.label: entry.blob.diff for entry in net.parameters.learnable}
    spoil(net)
    net.clear_param_diffs()
    assert not any(array.any() for label, array in held.items() if not label.startswith("frozen"))
    net.forward_from_to()
    net.backward_from_to()
    assert held["ip1[0]"].any()
    spoil(net)
    net.parameters.clear_diffs()  # as a step does
    net.forward_from_to()
    net.backward_from_to()
    assert not held["idle[0]"].any(), "zeros are written at the end of backward"


def test_steps_of_several_passes_and_a_branch_without_gradient(backend: str) -> None:
    """The idle branch decays by the same factor in each step: old updates, which lie in its gradient, are not taken up."""
    text = TEXT.format(force="false")
    settings = (
        'base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.5 iter_size: 2 snapshot_after_train: false random_seed: 2'
    )
    weights = []
    for clears in (False, True):
        parameter = parse_prototxt(f"{settings} net_param {{ {text} }}", SolverParameter)
        solver = create_solver(parameter, backend=create_backend(backend), seed=2)
        net = solver.net
        fill(net)
        if clears:
            solver.add_callback(lambda net=net: net.parameters.diff.settle(), lambda: None)  # type: ignore[misc]
        idle = net.params["idle"][0].data.copy()
        solver.step(3)
        np.testing.assert_allclose(net.params["idle"][0].data, idle * (1 - 0.1 * 0.5) ** 3, rtol=1e-5)
        weights.append(net.parameters.data.host().copy())
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6)
