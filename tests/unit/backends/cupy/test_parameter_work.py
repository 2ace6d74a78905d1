"""Work on parameters that a recording does all at once: the same bits as layer by layer, in fewer launches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.graph import capture
from paratrain.backends.cupy.modules import KernelModule
from paratrain.layers.base import Clock, LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from tests.unit.net.build import inner_product


def convolution(name: str, bottoms: str, tops: str, shared: str = "") -> str:
    names = f'param {{ name: "{shared}" }} param {{ name: "{shared} bias" }}' if shared else ""
    filler = 'weight_filler { type: "gaussian" std: 0.2 } bias_filler { type: "constant" value: 0.1 }'
    return f"""layer {{ name: "{name}" type: "Convolution" {bottoms} {tops} {names}
        convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 {filler} }} }}"""


# "twin" uses the weights of "one", and "pair" its own for two bottoms: their gradients are added to what is pending.
NET = f"""
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{ shape {{ dim: 80 dim: 8 dim: 9 dim: 7 }}
    shape {{ dim: 80 }} data_filler {{ type: "gaussian" std: 1 }} data_filler {{ type: "constant" value: 2 }} }} }}
{convolution("one", 'bottom: "data"', 'top: "one"', "shared")}
{convolution("twin", 'bottom: "one"', 'top: "twin"', "shared")}
{convolution("pair", 'bottom: "one" bottom: "twin"', 'top: "left" top: "right"')}
layer {{ name: "sum" type: "Eltwise" bottom: "left" bottom: "right" top: "sum" }}
{inner_product("last", "sum", "last", 5)}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "last" bottom: "label" top: "loss" }}
"""
SMALL_KERNELS = {"prepare_weights", "to_plain"}


def train(backend: CupyBackend, *, is_recorded: bool) -> list[Any]:
    """The losses and gradients of some steps of two passes each, with weights that change."""
    context = LayerContext(backend=backend, phase=TRAIN, seed=3, clock=Clock())
    net, results = Net(parse_prototxt(NET, NetParameter), context), []
    for _ in range(6):
        net.clear_param_diffs()
        for _ in range(2):
            loss = net.recorded_pass.run() if is_recorded and net.recorded_pass is not None else None
            if loss is None:
                loss = net.forward_from_to()
                net.backward_from_to()
                if is_recorded and net.recorded_pass is not None:
                    net.recorded_pass.note_pass()
            results.append(np.float32(loss))
        gradients = [blob.read_diff(None).copy() for layer in net.layers for blob in layer.blobs]
        results += gradients
        net.parameters.data.mutable_device(backend.device)[...] *= np.float32(0.9)
    return results


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_the_same_bits(simulated_gpu: Any, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_layers = train(CupyBackend(precision), is_recorded=False)
    backend = CupyBackend(precision)
    launched: list[str] = []
    launch_blocks = KernelModule.launch_blocks

    def spy(self: KernelModule, name: str, blocks: int, *arguments: Any, **options: Any) -> None:
        if blocks and backend.stream.is_capturing():
            launched.append(name)
        launch_blocks(self, name, blocks, *arguments, **options)

    monkeypatch.setattr(KernelModule, "launch_blocks", spy)
    for values, expected in zip(train(backend, is_recorded=True), by_layers, strict=True):
        np.testing.assert_array_equal(values, expected)
    assert "softmax_loss_rows" in launched  # it was recorded
    assert {"add_parts", "convert_gradients"} <= set(launched)
    assert not SMALL_KERNELS & set(launched)


def test_whatever_happens_the_capture_ends(simulated_gpu: Any) -> None:
    stream = simulated_gpu.cuda.Stream()

    def fail() -> None:
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        capture(stream, fail)
    assert not stream.is_capturing()
    assert capture(stream, lambda: None) is not None
