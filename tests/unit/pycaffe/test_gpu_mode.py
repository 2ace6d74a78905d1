"""Scripts that ask for GPU mode, on simulated GPUs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
    caffe.set_mode_gpu()
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
