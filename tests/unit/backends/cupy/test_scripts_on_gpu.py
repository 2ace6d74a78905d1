"""Nets as scripts use them, on the GPU: what is written there counts, and what is looked at is what Caffe would show."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob, SyncedMemory
from paratrain.errors import LayerError
from paratrain.layers.base import LayerContext
from paratrain.layers.python import UserLayer
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, SolverParameter, parse_prototxt
from paratrain.solvers import create_solver
from paratrain.solvers.nets import NetOptions

NET = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }
layer { name: "c1" type: "Convolution" bottom: "x" top: "c1" convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "c2" type: "Convolution" bottom: "c1" top: "c2"
  convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
layer { name: "bn" type: "BatchNorm" bottom: "c2" top: "c2" }
layer { name: "sc" type: "Scale" bottom: "c2" top: "c2" scale_param { bias_term: true } }
layer { name: "sum" type: "Eltwise" bottom: "c2" bottom: "c1" top: "sum" eltwise_param { coeff: 1 coeff: -1 } }
layer { name: "r2" type: "ReLU" bottom: "sum" top: "sum" }
layer { name: "own" type: "Python" bottom: "sum" top: "own"
  python_param { module: "tests.unit.backends.cupy.test_scripts_on_gpu" layer: "Doubles" } }
layer { name: "pool" type: "Pooling" bottom: "own" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 3 } }
"""
LOSS = """
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
"""


class Doubles(UserLayer):
    """Doubles its bottom, unless that is one image alone."""

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        if bottom[0].data.shape[0] == 1:
            raise ValueError("one image is too few")
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        bottom[0].diff[...] = 2 * top[0].diff


def open_net(backend: str, precision: str = "float32") -> Net:
    net = Net(
        parse_prototxt(NET, NetParameter), LayerContext(create_backend(backend, precision), TRAIN, keeps_arrays=True)
    )
    rng = np.random.default_rng(1)
    for blob in (blob for blobs in net.params.values() for blob in blobs):
        blob.data[...] = 1 + rng.standard_normal(blob.shape) / 2
    return net


def compare(nets: list[Net], *halves: str) -> None:
    """All blobs and parameters of the second net are those of the first, but for rounding."""
    blobs: list[dict[str, Blob]] = [
        {**net.blobs, **{f"{name}[{i}]": blob for name, all_of in net.params.items() for i, blob in enumerate(all_of)}}
        for net in nets
    ]
    for name, blob in blobs[0].items():
        for half in halves:
            wanted, found = getattr(blob, half), getattr(blobs[1][name], half)
            np.testing.assert_allclose(found, wanted, atol=1e-3 * (1 + np.abs(wanted).max()), err_msg=f"{name}.{half}")


def values(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def test_a_script_sees_and_writes_what_it_would_on_the_host() -> None:
    nets = [open_net("numpy"), open_net("cupy")]
    views = [(net.blobs["x"].data, net.blobs["c1"].data, net.blobs["sum"].diff) for net in nets]

    def both(run: Callable[[Net], object]) -> None:
        for net in nets:
            run(net)

    both(lambda net: net.forward(x=values((2, 4, 6, 6))))
    compare(nets, "data")
    both(lambda net: net.backward(ip=values((2, 3))))
    compare(nets, "diff")  # that of "sum" as the ReLU has left it
    for x, _, _ in views:
        x[...] = -values((2, 4, 6, 6))
    both(lambda net: net.params["c2"][0].data.fill(0.5))
    both(lambda net: net.forward())
    both(lambda net: net.clear_param_diffs())
    both(lambda net: net.backward(start="sum", sum=values((2, 4, 6, 6))))
    compare(nets, "data", "diff")
    for wanted, found in zip(*views, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())
    for net in nets:
        net.blobs["c1"].data[...] = values((2, 4, 6, 6))
        net.params["ip"][0].diff[...] = 1
        net.forward(start="c2", end="pool")
        net.backward(start="pool", end="c2")
    compare(nets, "data", "diff")


def test_after_an_error_the_arrays_that_a_script_keeps_still_count() -> None:
    nets = [open_net("numpy"), open_net("cupy")]
    for net in nets:
        net.blobs["x"].reshape(1, 4, 6, 6)
        x = net.blobs["x"].data
        x[...] = 1
        with pytest.raises(LayerError, match="one image is too few"):
            net.forward()
        x[...] = values((1, 4, 6, 6))
        net.forward(end="sum")
    compare(nets, "data")


def test_gradients_are_cleared_where_they_lie(simulated_gpu: Any) -> None:
    import simulated

    net = open_net("cupy")
    net.forward(x=values((2, 4, 6, 6)))
    net.backward(ip=values((2, 3)))
    before = simulated.counts.copy()
    net.clear_param_diffs()
    assert simulated.counts["download"] == before["download"]
    assert simulated.counts["upload"] == before["upload"]
    assert not any(blob.diff.any() for blobs in net.params.values() for blob in blobs)


def test_arrays_of_former_sizes_go() -> None:
    net = open_net("cupy", "bfloat16")
    for size in range(9, 3, -1):
        net.blobs["x"].reshape(2, 4, size, size)
        net.forward(x=values((2, 4, size, size)))
        net.backward(ip=values((2, 3)))
    memories: list[Any] = [net.blobs[name].data_memory for name in ("c1", "sum")] + [net.blobs["c1"].diff_memory]
    kept = [form.count for memory in memories for form in memory.arrangements]
    assert set(kept) == {2 * 4 * 4 * 4}


def test_arrays_go_with_their_memory(simulated_gpu: Any) -> None:
    """At once, without a search for what refers to itself: they may be large, and a net whose shapes change makes many."""
    forms, pool = create_backend("cupy", "bfloat16").forms, simulated_gpu.get_default_memory_pool()  # type: ignore[attr-defined]
    used_bytes = pool.used_bytes()
    gc.disable()
    try:
        memory = SyncedMemory(64)
        for channels_last in (False, True):
            forms.write(memory, Form.of((1, 4, 4, 4), np.float16, channels_last=channels_last))
        assert pool.used_bytes() > used_bytes
        del memory
        assert pool.used_bytes() == used_bytes
    finally:
        gc.enable()


def test_threads_share_the_stream_and_take_turns(simulated_gpu: Any) -> None:
    net, found = open_net("cupy"), list[Any]()
    backend = net.context.backend
    wanted = net.forward(x=values((2, 4, 6, 6)))["ip"].copy()

    def run() -> None:
        before = simulated_gpu.cuda.get_current_stream()
        net.before_forward(lambda _: found.append(simulated_gpu.cuda.get_current_stream()))
        found.append(net.forward()["ip"].copy())
        found.append(simulated_gpu.cuda.get_current_stream() == before)

    thread = threading.Thread(target=run)
    with backend.alone():
        thread.start()
        thread.join(0.02)
        assert not found
        with backend.alone():  # the same thread does not wait for itself
            pass
    thread.join()
    assert found.pop()
    np.testing.assert_array_equal(found.pop(), wanted)
    assert {stream.ptr for stream in found} == {simulated_gpu.cuda.get_current_stream().ptr}


def test_a_step_uploads_a_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script has written into an array that it keeps counts in forward and backward; nobody writes in between."""
    settings = (
        f'base_lr: 0.01 lr_policy: "fixed" snapshot_after_train: false random_seed: 1 net_param {{ {NET + LOSS} }}'
    )
    parameter = parse_prototxt(settings, SolverParameter)
    solvers = [
        create_solver(parameter, backend=create_backend(backend), net_options=NetOptions(keeps_arrays=True))
        for backend in ("numpy", "cupy")
    ]
    batches = [(solver.net.blobs["x"].data, solver.net.blobs["t"].data) for solver in solvers]
    uploaded: list[int] = []
    upload = CudaDevice.upload

    def count(device: CudaDevice, host: Any, array: Any) -> None:
        uploaded.append(host.ctypes.data)
        upload(device, host, array)

    monkeypatch.setattr(CudaDevice, "upload", count)
    for scale in (1, -1, 2):
        uploaded.clear()
        for solver, (x, t) in zip(solvers, batches, strict=True):
            x[...], t[...] = scale * values(x.shape), scale * values(t.shape)
            solver.step(1)
        assert uploaded.count(batches[1][0].ctypes.data) == 1
    compare([solver.net for solver in solvers], "data", "diff")
    for solver in solvers:
        solver.close()
