"""debug_info: Caffe's lines, with the mean absolute value of what each blob holds at that moment."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.net import Net, debug
from paratrain.proto import SolverParameter
from paratrain.solvers import create_solver
from tests.unit.net.build import DATA, LABEL, build, inner_product

LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "label2" top: "loss" }'
LABEL2 = LABEL.replace('"label"', '"label2"').replace("dim: 2", "dim: 2 dim: 4")
SHARED = 'param { name: "w" } param { }'


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "paratrain.net.debug"]


def mean(values: np.ndarray) -> str:
    return f"{np.abs(values).mean(dtype=np.float64):g}"


def shared_net() -> Net:
    """Two layers of one weight matrix, each with a bias of its own."""
    data = DATA.replace("dim: 3", "dim: 4")
    net = build(
        data, LABEL2, inner_product("a", "data", "a", extra=SHARED), inner_product("b", "a", "b", extra=SHARED), LOSS
    )
    generator = np.random.default_rng(5)
    for name in net.input_names:
        net.blobs[name].data[...] = generator.normal(size=net.blobs[name].shape)
    return net


def test_nothing_is_said_unless_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    net = shared_net()
    net.forward_from_to()
    net.backward_from_to()
    assert not net.debug_info
    assert lines(caplog) == []


def test_the_lines_of_forward_and_backward(caplog: pytest.LogCaptureFixture) -> None:
    net = shared_net()
    net.debug_info = True
    caplog.set_level(logging.INFO)
    loss = net.forward_from_to()
    (weights, bias_a), (_, bias_b) = net.params["a"], net.params["b"]
    blob = {name: mean(values.data) for name, values in net.blobs.items()}
    assert lines(caplog) == [
        f"    [Forward] Layer data, top blob data data: {blob['data']}",
        f"    [Forward] Layer label2, top blob label2 data: {blob['label2']}",
        f"    [Forward] Layer a, top blob a data: {blob['a']}",
        f"    [Forward] Layer a, param blob w data: {mean(weights.data)}",
        f"    [Forward] Layer a, param blob 1 data: {mean(bias_a.data)}",
        f"    [Forward] Layer b, top blob b data: {blob['b']}",
        f"    [Forward] Layer b, param blob w data: {mean(weights.data)}",
        f"    [Forward] Layer b, param blob 1 data: {mean(bias_b.data)}",
        f"    [Forward] Layer loss, top blob loss data: {loss:g}",
    ]
    caplog.clear()
    net.backward_layer(4)
    net.backward_layer(3)
    half = mean(weights.diff)  # what b has given; a adds to it
    net.clear_param_diffs()
    caplog.clear()
    net.backward_from_to()
    values = [weights.data, bias_a.data, bias_b.data]
    gradients = [weights.diff, bias_a.diff, bias_b.diff]
    l1 = [sum(float(np.abs(part).sum(dtype=np.float64)) for part in parts) for parts in (values, gradients)]
    l2 = [
        np.sqrt(sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)) for parts in (values, gradients)
    ]
    assert half != mean(weights.diff)
    assert lines(caplog) == [
        f"    [Backward] Layer loss, bottom blob b diff: {mean(net.blobs['b'].diff)}",
        f"    [Backward] Layer b, bottom blob a diff: {mean(net.blobs['a'].diff)}",
        f"    [Backward] Layer b, param blob 0 diff: {half}",
        f"    [Backward] Layer b, param blob 1 diff: {mean(bias_b.diff)}",
        f"    [Backward] Layer a, param blob 0 diff: {mean(weights.diff)}",
        f"    [Backward] Layer a, param blob 1 diff: {mean(bias_a.diff)}",
        "    [Backward] All net params (data, diff): "
        f"L1 norm = ({l1[0]:g}, {l1[1]:g}); L2 norm = ({l2[0]:g}, {l2[1]:g})",
    ]


def test_the_lines_of_the_update_name_the_owner_of_a_shared_parameter(caplog: pytest.LogCaptureFixture) -> None:
    net = shared_net()
    net.forward_from_to()
    net.backward_from_to()
    caplog.set_level(logging.INFO)
    before = debug.data_means(net)
    (weights, bias_a), (_, bias_b) = net.params["a"], net.params["b"]
    expected = [mean(blob.data) for blob in (weights, bias_a, bias_b)]
    weights.data[...] -= weights.diff
    debug.update(net, before)
    diff = mean(weights.diff)
    assert lines(caplog) == [
        f"    [Update] Layer a, param w data: {expected[0]}; diff: {diff}",
        f"    [Update] Layer a, param 1 data: {expected[1]}; diff: {mean(bias_a.diff)}",
        f"    [Update] Layer b, param blob w (owned by layer a, param w) diff: {diff}",
        f"    [Update] Layer b, param 1 data: {expected[2]}; diff: {mean(bias_b.diff)}",
    ]


@pytest.mark.parametrize(("display", "debug_info"), [(1, True), (1, False), (2, True), (0, True)])
def test_a_solver_shows_it_where_it_displays(
    display: int, debug_info: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """As in Caffe, the solver's field decides while it trains, whatever the net's says."""
    filled = 'dummy_data_param { data_filler { type: "gaussian" } '
    inputs = [text.replace("Input", "DummyData").replace("input_param {", filled) for text in (DATA, LABEL2)]
    path = tmp_path / "net.prototxt"
    path.write_text("\n".join(["debug_info: true", *inputs, inner_product("b", "data", "b"), LOSS]))
    settings = {"net": str(path), "base_lr": 0.1, "lr_policy": "fixed", "random_seed": 1, "display": display}
    solver = create_solver(SolverParameter(debug_info=debug_info, **settings), backend=create_backend())
    caplog.set_level(logging.INFO)
    weights = solver.net.params["b"][0]
    befores = []
    for _ in range(3):
        befores.append(mean(weights.data))
        solver.step(1)
    solver.close()
    shown = [step for step in range(3) if display and step % display == 0 and debug_info]
    kinds = [line.split("]")[0].strip(" [") for line in lines(caplog)]
    assert kinds == (["Forward"] * 6 + ["Backward"] * 4 + ["Update"] * 2) * len(shown)
    updates = [line for line in lines(caplog) if "[Update] Layer b, param 0" in line]
    assert [line.split()[6] for line in updates] == [befores[step] + ";" for step in shown]


def test_a_net_says_so_itself(caplog: pytest.LogCaptureFixture) -> None:
    net = build("debug_info: true", DATA, inner_product("b", "data", "b"))
    caplog.set_level(logging.INFO)
    net.forward()
    assert len(lines(caplog)) == 4
