"""What a GPU's failures say, on a simulated one."""

from __future__ import annotations

from typing import Any

import pytest

from paratrain.activity import Activity
from paratrain.backends import create_backend
from paratrain.errors import DeviceError, DeviceFullError
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.net.device_errors import largest_batch, telling_device_errors
from paratrain.proto import TEST, TRAIN, NetParameter, parse_prototxt
from tests.simulated_gpu_path import simulated_gpu  # noqa: F401

NET = """
name: "two"
layer { name: "data" type: "DummyData" top: "x" dummy_data_param { shape { dim: 50 dim: 30 } data_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }
"""


@pytest.fixture
def net() -> Net:
    return Net(parse_prototxt(NET, NetParameter), LayerContext(create_backend("cupy"), TRAIN))


def test_a_lost_gpu_is_an_error_of_the_layer(net: Net, simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def fail(*_: object) -> None:
        raise simulated_gpu.cuda.runtime.CUDARuntimeError(700)

    layer = net.layers[1]
    net.forward_from_to()
    monkeypatch.setattr(layer, "backward", fail)
    with pytest.raises(DeviceError, match=r"layer 'ip' \(InnerProduct\), backward: GPU 0 failed: .*Illegal|700"):
        net.backward_from_to()
    monkeypatch.setattr(layer, "forward", fail)
    with pytest.raises(DeviceError, match=r"layer 'ip' \(InnerProduct\), forward: GPU 0 failed: "):
        net.forward_from_to()
    monkeypatch.setattr(layer, "forward", lambda *_: [][0])
    with pytest.raises(IndexError):  # a mistake of the layer's own is told as it is
        net.forward_from_to()


def test_outside_of_layers_the_activity_is_named(net: Net, simulated_gpu: Any) -> None:  # noqa: F811
    activity, backend = Activity(), net.context.backend
    activity.iteration = 12
    activity.enter("update")
    with (
        pytest.raises(DeviceError, match="iteration 12, update: GPU 0 failed: "),
        telling_device_errors(backend, activity),
    ):
        raise simulated_gpu.cuda.runtime.CUDARuntimeError(719)
    full = pytest.raises(DeviceFullError, match="iteration 12, update: GPU 0 is full: ")
    with full as caught, telling_device_errors(backend, activity):
        raise simulated_gpu.cuda.memory.OutOfMemoryError(4096, 0, 0)
    assert caught.value.wanted_bytes == 4096
    by_itself = pytest.raises(DeviceFullError, match="update: GPU 0 is full: CUDA wanted bytes for itself, ")
    with by_itself, telling_device_errors(backend, activity):  # for a kernel or a graph
        raise simulated_gpu.cuda.runtime.CUDARuntimeError(2)
    with full, telling_device_errors(backend, activity):  # for what the solver remembers
        device: Any = backend.device
        device.empty(10**12, "f4")
    with (
        pytest.raises(DeviceFullError, match="^layer 'ip': GPU 0 is full$"),
        telling_device_errors(backend, activity),
    ):
        raise DeviceFullError("layer 'ip': GPU 0 is full", wanted_bytes=1, free_bytes=0, used_bytes=0)
    with pytest.raises(ValueError, match="other"), telling_device_errors(backend, activity):
        raise ValueError("other")


def test_the_largest_batch_is_estimated_from_the_bytes_of_a_sample(net: Net) -> None:
    """Data and gradients of x, y and the loss: 4 (30 + 20) 2 bytes a sample, and a little."""

    def full(wanted: int, free: int, used: int = 0) -> DeviceFullError:
        return DeviceFullError("full", wanted_bytes=wanted, free_bytes=free, used_bytes=used)

    net.forward_from_to()
    held = 4 * 50 * (30 + 20) + 4  # what forward has taken: the data, not the gradients
    assert largest_batch(net, full(1000, 0)) == (0, 401)
    assert largest_batch(net, full(4 * 50 * 20, 8000)) == (8000 // 401, 401)  # y's gradient is one of the blobs
    assert largest_batch(net, full(1000, 9000)) == (8000 // 401, 401)  # anything else has to be there as well
    assert largest_batch(net, full(4000, 2000, used=10**9)) == ((2000 + held) // 401, 401)
    assert largest_batch(net, full(1000, 10**9)) == (49, 401)  # less than what did not fit


@pytest.mark.parametrize(("phase", "named"), [(TRAIN, "the net"), (TEST, "the TEST net")])
def test_it_is_said_whose_batch_is_too_large(phase: Any, named: str, simulated_gpu: Any) -> None:  # noqa: F811
    net = Net(parse_prototxt(NET, NetParameter), LayerContext(create_backend("cupy"), phase))
    pool = simulated_gpu.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.total_bytes() + 512)
    try:
        with pytest.raises(DeviceFullError, match=rf"^layer 'ip' .* is full: .*\. The blobs of {named} take about "):
            net.forward_from_to()
    finally:
        pool.set_limit(size=0)
