from __future__ import annotations

import pytest

from paratrain.errors import DeviceError
from paratrain.launch import device
from paratrain.topology.machine import Gpu, Machine

NONE = Machine(source="NVML", no_gpu_reason="the driver is not installed")
TWO = Machine(source="NVML", gpus=(Gpu(0), Gpu(1)))


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(device, "find_machine", lambda: request.param)
    found: Machine = request.param
    return found


@pytest.mark.parametrize("machine", [NONE, TWO], indirect=True)
def test_what_needs_no_gpu_asks_for_none(machine: Machine) -> None:
    assert device.choose_cpu("7", cpu=True, gpu_mode=True) == "--cpu"
    assert device.choose_cpu(None, cpu=False, gpu_mode=False) == "solver_mode: CPU"
    assert device.count_ranks(None, cpu=False) == 1
    assert device.count_ranks("0, 1,5", cpu=True) == 3


@pytest.mark.parametrize("machine", [NONE], indirect=True)
def test_without_a_gpu(machine: Machine) -> None:
    assert device.choose_cpu(None, cpu=False, gpu_mode=True) == "no NVIDIA GPU: the driver is not installed"
    for ask in (lambda: device.choose_cpu("0", cpu=False, gpu_mode=True), lambda: device.count_ranks("all", cpu=False)):
        with pytest.raises(DeviceError, match="no NVIDIA GPU: the driver is not installed"):
            ask()


@pytest.mark.parametrize("machine", [TWO], indirect=True)
def test_with_gpus_the_log_says_that_they_stay_idle(machine: Machine) -> None:
    for gpu in (None, "0", "all"):
        assert "no GPU backend" in device.choose_cpu(gpu, cpu=False, gpu_mode=True)
    assert "no GPU backend" in device.choose_cpu("1", cpu=False, gpu_mode=False)
    assert device.count_ranks("all", cpu=False) == 2
    assert device.count_ranks("1", cpu=False) == 1


@pytest.mark.parametrize("machine", [TWO], indirect=True)
def test_a_gpu_that_is_not_there(machine: Machine) -> None:
    with pytest.raises(DeviceError, match="-gpu 7: this machine has"):
        device.choose_cpu("7", cpu=False, gpu_mode=True)
    with pytest.raises(DeviceError, match="-gpu 0,7: this machine has"):
        device.count_ranks("0,7", cpu=False)


@pytest.mark.parametrize("text", ["all", "0,0", "", "0,", "x", "-1"])
def test_lists_of_cpu_ranks_that_cannot_be_read(text: str) -> None:
    with pytest.raises(DeviceError, match="expected different numbers"):
        device.count_ranks(text, cpu=True)
