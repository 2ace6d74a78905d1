from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paratrain.comm.local import LocalCommunicator
from paratrain.errors import DeviceError
from paratrain.launch import device
from paratrain.launch.device import Computing
from paratrain.launch.gpu_links import cpus_near, links_of_ranks, machine_of_ranks
from paratrain.launch.rank_gpus import RankGpus
from paratrain.topology.machine import Gpu, Link, LinkClass, LinkKind, Machine
from paratrain.topology.sources.pci import PciTree

NONE = Machine(source="NVML", no_gpu_reason="the driver is not installed")
TWO = Machine(source="NVML", gpus=(Gpu(0, bus_id="0000:1b:00.0"), Gpu(1, bus_id="0000:3b:00.0")))
NO_CUPY = Machine(source="CUDA", no_gpu_reason="training on GPUs needs cupy, which is not installed: pip install ...")


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What CUDA shows is the first machine, what the driver knows the second one."""
    by_cuda, by_driver = request.param
    monkeypatch.setattr(device, "visible_gpus", lambda: by_cuda)
    monkeypatch.setattr(device, "find_machine", lambda: by_driver)
    found: Machine = by_cuda
    return found


def choose(gpu: str | None = None, *, cpu: bool = False, backend: str | None = None, **more: Any) -> Computing:
    environ = more.pop("environ", {})
    return device.choose(argparse.Namespace(gpu=gpu, cpu=cpu, backend=backend), environ=environ, **more)


@pytest.mark.parametrize("machine", [(NONE, NONE), (TWO, TWO)], indirect=True)
def test_what_needs_no_gpu_asks_for_none(machine: Machine) -> None:
    assert choose("7", cpu=True).reason == "--cpu"
    assert choose(gpu_mode=False).reason == "solver_mode: CPU"
    assert choose(backend="numpy") == Computing(None, "--backend numpy", "numpy")
    assert choose(environ={"PARATRAIN_BACKEND": "numpy"}).reason == "PARATRAIN_BACKEND=numpy"
    assert choose(cpu=True, environ={"PARATRAIN_BACKEND": "cupy"}).backend_name == "onednn"
    assert device.count_ranks(None, cpu=False) == 1
    assert device.count_ranks("0, 1,5", cpu=True) == 3


@pytest.mark.parametrize("machine", [(NONE, NONE)], indirect=True)
def test_without_a_gpu(machine: Machine) -> None:
    assert choose() == Computing(None, "no NVIDIA GPU: the driver is not installed")
    for ask in (lambda: choose("0"), lambda: device.count_ranks("all", cpu=False), lambda: choose(backend="cupy")):
        with pytest.raises(DeviceError, match="no NVIDIA GPU: the driver is not installed"):
            ask()


@pytest.mark.parametrize("machine", [(NO_CUPY, TWO)], indirect=True)
def test_gpus_that_cannot_be_used(machine: Machine) -> None:
    assert choose().reason == f"{NO_CUPY.no_gpu_reason}; 2 GPUs (0, 1) idle"
    with pytest.raises(DeviceError, match=r"-gpu 0,1: training on GPUs needs cupy.*; or leave out -gpu"):
        choose("0,1")
    with pytest.raises(DeviceError, match=r"-gpu 0,7: this machine has 2 GPUs"):
        choose("0,7")


@pytest.mark.parametrize("machine", [(TWO, TWO)], indirect=True)
def test_ranks_take_gpus_in_turns(machine: Machine) -> None:
    def number(*arguments: Any, **more: Any) -> int:
        found = choose(*arguments, **more)
        assert found.backend_name == "cupy"
        assert found.gpu is not None
        return found.gpu.index

    assert [number(local_rank=rank) for rank in range(5)] == [0, 1, 0, 1, 0]
    assert [number("1,0", local_rank=rank) for rank in range(3)] == [1, 0, 1]
    assert number("1", gpu_mode=False) == 1  # as in Caffe, -gpu counts more than solver_mode
    assert number(device_id=1) == 1
    assert number("0", device_id=1) == 0
    assert number(backend="cupy", gpu_mode=False) == 0
    assert device.count_ranks("all", cpu=False) == 2
    assert device.count_ranks("1", cpu=False) == 1


@pytest.mark.parametrize("machine", [(TWO, TWO)], indirect=True)
def test_a_gpu_that_is_not_there(machine: Machine) -> None:
    with pytest.raises(DeviceError, match="-gpu 7: this machine has"):
        choose("7")
    with pytest.raises(DeviceError, match="-gpu 0,7: this machine has"):
        device.count_ranks("0,7", cpu=False)
    with pytest.raises(DeviceError, match=r"device_id is 5, and this machine has 2 GPUs \(0, 1\)"):
        choose(device_id=5)
    for contradiction in ({"gpu": "0", "backend": "numpy"}, {"cpu": True, "backend": "cupy"}):
        with pytest.raises(DeviceError, match="contradict"):
            choose(**contradiction)


def test_a_gpu_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken:
        def __init__(self, index: int) -> None:
            assert index == 1

        def use(self) -> None:
            raise RuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable")

    monkeypatch.setattr("paratrain.gpu.library", lambda: SimpleNamespace(cuda=SimpleNamespace(Device=Taken)))
    computing = Computing(Gpu(1, "A", "0000:3b:00.0"), backend_name="cupy")
    with pytest.raises(
        DeviceError, match=r"GPU 1 \(A, bus 0000:3b:00.0\) cannot be used: cudaErrorDevicesUnav.* nvidia-smi"
    ):
        computing.create_backend()


@pytest.mark.parametrize("text", ["all", "0,0", "", "0,", "x", "-1"])
def test_lists_of_cpu_ranks_that_cannot_be_read(text: str) -> None:
    with pytest.raises(DeviceError, match="expected different numbers"):
        device.count_ranks(text, cpu=True)


def on(*indices: int | None) -> tuple[Computing, ...]:
    gpus = [None if index is None else Gpu(index, "A", f"0000:{index}b:00.0") for index in indices]
    return tuple(Computing(gpu, "no driver", chosen=(0, 1, 2)) for gpu in gpus)


def test_what_the_log_says_of_gpus(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        RankGpus(on(0, 1, 0, 1), (0, 0, 0, 0)).log("0,1,2")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[2] == "rank 2 -> GPU 0 (A, bus 0000:0b:00.0)"
    assert lines[4].startswith(
        "ranks 0,2 share GPU 0 (A, bus 0000:0b:00.0), and so it is with 1 GPU more: they take turns"
    )
    assert "-gpu 0,1,2 lists 3 GPUs (0, 1, 2)" in lines[5]
    assert "GPU 2 stays idle" in lines[5]
    caplog.clear()
    with caplog.at_level("INFO"):
        RankGpus(on(0, 1, 0, 1), (0, 0, 1, 1)).log(None)  # one GPU each
    assert [record.getMessage() for record in caplog.records][2:] == [
        "rank 2 -> GPU 0 (A, bus 0000:0b:00.0), node 1",
        "rank 3 -> GPU 1 (A, bus 0000:1b:00.0), node 1",
    ]
    assert "rank 1 on the CPU (no driver)" in RankGpus(on(0, None), (0, 1)).check()
    assert RankGpus(on(None, None), (0, 1)).check() == RankGpus(on(0, 1), (0, 1)).check() == ""


def test_links_are_those_of_the_ranks_gpus() -> None:
    """Ranks that each see one GPU as number 0 are found by bus id; those that share one have its memory between them."""
    gpus = tuple(Gpu(index, "A", f"00000000:{index}b:00.0") for index in range(3))
    nvlink = Link(1, 2, LinkClass(LinkKind.NVLINK, 4))
    machine = Machine(gpus=gpus, links=(nvlink,), source="NVML", vetoes={(0, 1): "bad"})
    own = [Gpu(0, "A", "0000:2b:00.0"), Gpu(0, "A", "0000:1b:00.0"), Gpu(0, "A", "0000:2b:00.0")]
    found = machine_of_ranks(machine, own)
    assert [gpu.bus_id for gpu in found.gpus] == ["00000000:2b:00.0", "00000000:1b:00.0", "00000000:2b:00.0"]
    assert found.indices == (0, 1, 2)
    assert [str(found.link_class(*pair)) for pair in ((0, 1), (1, 2), (0, 2))] == ["NV4", "NV4", "PIX"]
    assert list(found.measured) == [(0, 2)]
    assert found.vetoes == {}
    places = tuple(Computing(gpu) for gpu in own[:1])
    checked: list[int] = []

    def check(used: Machine, byte_count: int) -> Machine:
        checked.append(byte_count)
        return used

    for by_driver, source in ((machine, "NVML"), (NONE, "CUDA")):
        find = links_of_ranks(LocalCommunicator(), RankGpus(places, (0,)), lambda found=by_driver: found, check)  # type: ignore[misc]
        assert find(1000).source == source
        assert len(find(1000).gpus) == 1
    assert checked == []  # one GPU has no link


def test_cores_near_a_gpu_are_those_that_linux_names(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/pci/devices/0000:3b:00.0"
    folder.mkdir(parents=True)
    (folder / "local_cpulist").write_text("0-3,8\n")
    tree = PciTree(tmp_path)
    assert cpus_near(Gpu(1, bus_id="0000:3B:00.0"), tree) == (0, 1, 2, 3, 8)
    assert cpus_near(Gpu(0, bus_id="0000:1b:00.0"), tree) == ()
