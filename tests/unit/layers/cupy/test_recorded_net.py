"""Whole passes over a net that draws, learns slopes and counts labels: by layers, recorded, and on the CPU."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.layers.base import Clock, LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from tests.unit.net.build import inner_product

NET = f"""
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{ shape {{ dim: 8 dim: 20 }} shape {{ dim: 8 }}
    data_filler {{ type: "gaussian" std: 1 }} data_filler {{ type: "constant" value: 2 }} }} }}
{inner_product("first", "data", "first", 30)}
layer {{ name: "rectify" type: "PReLU" bottom: "first" top: "first" }}
layer {{ name: "drop" type: "Dropout" bottom: "first" top: "first" }}
{inner_product("second", "first", "second", 5)}
layer {{ name: "accuracy" type: "Accuracy" bottom: "second" bottom: "label" top: "accuracy" }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "second" bottom: "label" top: "loss" loss_param {{ ignore_label: 4 }} }}
"""
STEP_COUNT = 5


def run(backend: Any, *, recorded: bool = False) -> list[Any]:
    """The loss, the accuracy and the gradients of all steps."""
    clock, results = Clock(), []
    net = Net(parse_prototxt(NET, NetParameter), LayerContext(backend=backend, phase=TRAIN, seed=3, clock=clock))
    for clock.iteration in range(STEP_COUNT):
        net.clear_param_diffs()
        loss = net.recorded_pass.run() if recorded and net.recorded_pass is not None else None
        if loss is None:
            loss = net.forward_from_to()
            net.backward_from_to()
            if recorded and net.recorded_pass is not None:
                net.recorded_pass.note_pass()
        backend.check_faults()
        results.append(np.float32(loss))
        results.append(net.blobs["accuracy"].read_data(None).copy())
        results.extend(blob.read_diff(None).copy() for layer in net.layers for blob in layer.blobs)
    return results


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_recorded_step_draws_new_masks(simulated_gpu: Any, precision: str) -> None:
    counts = importlib.import_module("simulated").counts
    by_layers = run(create_backend("cupy", precision))
    launches = counts["graph_launch"]
    recorded = run(create_backend("cupy", precision), recorded=True)
    assert counts["graph_launch"] - launches == STEP_COUNT - 2
    for values, expected in zip(recorded, by_layers, strict=True):
        np.testing.assert_array_equal(values, expected)
    limit = 2e-5 if precision == "float32" else 5e-2
    for values, expected in zip(by_layers, run(create_backend("numpy")), strict=True):
        np.testing.assert_allclose(values, expected, rtol=limit, atol=limit * np.abs(expected).max())
