"""Scripts that ask for GPU mode, on simulated GPUs."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paratrain as caffe
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.errors import DeviceError, NetError
from paratrain.pycaffe.modes import new_backend
from paratrain.pycaffe.ranks import choices
from tests.simulated_gpu_path import simulated_gpu  # noqa: F401

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
"""


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch, simulated_gpu: Any) -> Iterator[None]:  # noqa: F811
    monkeypatch.setenv("SIMULATED_GPUS", "2")
    # Nets of other tests may be there yet.
    monkeypatch.setattr("paratrain.pycaffe.modes._made_on_cpu", weakref.WeakSet())
    yield
    simulated_gpu.cuda.Device(0).use()
    choices.is_gpu_mode = choices.device = None


def number(net: caffe.Net) -> int | None:
    backend = net.context.backend
    return backend.device.number if isinstance(backend, CupyBackend) else None


def test_the_mode_is_that_of_nets_made_afterwards(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    path = str(tmp_path / "net.prototxt")
    plain = caffe.Net(path, caffe.TEST)
    with pytest.warns(UserWarning, match=r"set_mode_gpu\(\): of the nets and solvers made before, 1 go on .* CPU"):
        caffe.set_mode_gpu()
    caffe.set_mode_cpu()
    cpu = caffe.Net(path, caffe.TEST)
    caffe.set_mode_gpu()  # the net before was meant for the CPU
    assert number(cpu) is None
    first = caffe.Net(path, caffe.TEST)
    caffe.set_device(1)
    second, third = caffe.Net(path, caffe.TEST), caffe.Net(path, caffe.TEST)
    caffe.set_mode_cpu()
    assert [number(net) for net in (plain, first, second, third, caffe.Net(path, caffe.TEST))] == [None, 0, 1, 1, None]
    with pytest.raises(DeviceError, match=r"set_device\(2\): this machine has 2 GPUs"):
        caffe.set_device(2)
    with pytest.raises(NetError, match="they compute on different GPUs"):
        second.share_with(first)
    second.share_with(third)
    x = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    for net in (plain, second):
        net.params["ip"][0].data[...] = np.arange(8).reshape(2, 4) - 3
        net.params["ip"][1].data[...] = 0.5
    found = second.forward(x=x)["y"].copy()
    np.testing.assert_allclose(found, plain.forward(x=x)["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(third.forward(x=x)["y"], found)  # its parameters are the second's


def test_ranks_of_a_machine_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    caffe.set_mode_gpu()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    for rank, device in enumerate((0, 1, 0, 1)):
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
        monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", str(rank))
        backend = new_backend()
        assert isinstance(backend, CupyBackend)
        assert backend.device.number == device


def test_nets_and_solvers_on_several_gpus_take_turns(tmp_path: Path) -> None:
    """Each works on its own GPU, whichever a thread has used before."""
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }'
    target = 'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 3 dim: 2 } } }'
    (tmp_path / "net.prototxt").write_text(NET + target + loss)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 1 clip_gradients: 0.5 '
        f'snapshot_prefix: "{tmp_path}/one"'
    )
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal((3, 2)).astype(np.float32)
    caffe.set_mode_gpu()
    solvers = []
    for device in (0, 1, 0):
        caffe.set_device(device)
        solvers.append(caffe.get_solver(str(tmp_path / "solver.prototxt")))
        solvers[-1].net.blobs["x"].data[...], solvers[-1].net.blobs["t"].data[...] = x, t
    assert [number(solver.net) for solver in solvers] == [0, 1, 0]

    def run(solver: caffe.Solver) -> None:
        for _ in range(3):
            solver.step(1)
        solver.snapshot()
        solver.net.forward()
        solver.net.backward()
        solver.apply_update()
        solver.restore(f"{tmp_path}/one_iter_3.solverstate")
        solver.step(1)

    run(solvers[0])
    run(solvers[1])
    thread = threading.Thread(target=run, args=(solvers[2],))  # it begins with GPU 0, and the null stream
    thread.start()
    thread.join()
    weights = [[blob.data.tobytes() for blob in solver.net.params["ip"]] for solver in solvers]
    assert weights[0] == weights[1] == weights[2]
    found: list[object] = []

    def forward_on_the_second() -> None:
        found.append(solvers[1].net.forward()["loss"].tobytes())

    thread = threading.Thread(target=forward_on_the_second)
    thread.start()
    thread.join()
    assert found == [solvers[0].net.forward()["loss"].tobytes()]


def test_a_timer_waits_for_what_gpus_were_given(tmp_path: Path, simulated_gpu: Any) -> None:  # noqa: F811
    import simulated

    (tmp_path / "net.prototxt").write_text(NET)
    timer = caffe.Timer()
    caffe.set_mode_gpu()
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
    net._forward(0, 2)
    counts = []
    for call in (timer.start, lambda: net._backward(2, 0), timer.stop):
        before = simulated.counts["synchronize"]
        call()
        counts.append(simulated.counts["synchronize"] - before)
    assert counts[0] >= 1
    assert counts[2] >= 1
    assert timer.ms > 0


LAYERS = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 4 dim: 4 } } }
layer { name: "pool" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 } }
layer { name: "bn" type: "BatchNorm" bottom: "y" top: "y" }
layer { name: "scale" type: "Scale" bottom: "y" top: "y" }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
layer { name: "prelu" type: "PReLU" bottom: "y" top: "y" }
layer { name: "drop" type: "Dropout" bottom: "y" top: "y" }
"""


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_net_that_is_deleted_gives_its_memory_back_at_once(phase: int, tmp_path: Path, simulated_gpu: Any) -> None:  # noqa: F811
    path, pool = tmp_path / "net.prototxt", simulated_gpu.get_default_memory_pool()
    path.write_text(LAYERS)
    caffe.set_mode_gpu()

    def used() -> int:
        net = caffe.Net(str(path), phase)
        net.forward()
        net.backward()
        del net
        return int(pool.used_bytes())

    gc.collect()
    gc.disable()
    try:
        first = used()  # with what all nets share
        assert used() == first
    finally:
        gc.enable()


def test_only_arrays_that_a_script_keeps_are_brought_up_to_date(tmp_path: Path, simulated_gpu: Any) -> None:  # noqa: F811
    import simulated

    (tmp_path / "net.prototxt").write_text(NET)
    caffe.set_mode_gpu()
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.params["ip"][0].data[...] = 1
    keeps: list[Callable[[np.ndarray[Any, Any]], Any]] = [lambda _: None, lambda y: y, lambda y: y[1:]]
    downloads = []
    for value, keep in enumerate(keeps, start=1):
        assert [blob.data.shape for blob in net.blobs.values()] == [(3, 4), (3, 2)]  # as scripts do to see the shapes
        kept = keep(net.blobs["y"].data)
        net.blobs["x"].data[...] = value
        before = simulated.counts["download"]
        net._forward(0, 2)
        downloads.append(simulated.counts["download"] - before)
        assert kept is None or np.all(kept == 4 * value)
        assert np.all(net.blobs["y"].data == 4 * value)
    assert downloads == [downloads[0], downloads[0] + 1, downloads[0] + 1]
