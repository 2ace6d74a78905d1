from __future__ import annotations

import pytest

from tests.unit.topology.asked import ask, bus, codes, pairs_by_nvlink, words
from tests.unit.topology.fake_nvml import FakeGpu, FakeMachine


def test_visible_devices_are_numbered_as_cuda_does() -> None:
    machine = ask(pairs_by_nvlink(), CUDA_VISIBLE_DEVICES="3,2,0")
    assert [(gpu.index, gpu.nvml_index) for gpu in machine.gpus] == [(0, 3), (1, 2), (2, 0)]
    assert words(machine) == [["X", "NV1", "SYS"], ["NV1", "X", "PXB"], ["SYS", "PXB", "X"]]
    assert codes(machine) == ["T01"]


def test_visible_devices_by_uuid_end_at_the_first_that_is_none() -> None:
    machine = ask(pairs_by_nvlink(), CUDA_VISIBLE_DEVICES="GPU-2a, 1 ,9,0")
    assert [gpu.nvml_index for gpu in machine.gpus] == [2, 1]


@pytest.mark.parametrize("value", ["", "-1", "none", "7"])
def test_visible_devices_that_hide_everything(value: str) -> None:
    machine = ask(pairs_by_nvlink(), CUDA_VISIBLE_DEVICES=value)
    assert machine.gpus == ()
    assert machine.no_gpu_reason == f"CUDA_VISIBLE_DEVICES='{value}' hides every GPU of this machine"


def test_visible_devices_that_name_all() -> None:
    assert ask(pairs_by_nvlink(), CUDA_VISIBLE_DEVICES="0,1,2,3") == ask(pairs_by_nvlink())


def test_models_that_differ() -> None:
    machine = FakeMachine((FakeGpu("NVIDIA L4", bus(0)), FakeGpu("NVIDIA A10", bus(1))))
    assert codes(ask(machine)) == ["T01", "T08"]
    assert codes(ask(machine, CUDA_DEVICE_ORDER="PCI_BUS_ID")) == ["T08"]


def test_cuda_numbers_the_gpus_otherwise() -> None:
    order = [2, 0, 1, 3]
    machine = ask(pairs_by_nvlink(), cuda=[bus(n) for n in order], CUDA_VISIBLE_DEVICES="nonsense that CUDA has read")
    assert [gpu.nvml_index for gpu in machine.gpus] == order
    assert words(machine)[0] == ["X", "PXB", "NODE", "NV1"]
    assert [warning.code for warning in machine.warnings] == ["T01"]
    assert "GPU0 is 2 there, GPU1 is 0 there, GPU2 is 1 there" in machine.warnings[0].message


def test_cuda_shows_some() -> None:
    machine = ask(pairs_by_nvlink(), cuda=[bus(3), bus(1)])
    assert [(gpu.index, gpu.nvml_index) for gpu in machine.gpus] == [(0, 3), (1, 1)]
    assert words(machine) == [["X", "PHB"], ["PHB", "X"]]
    assert "CUDA shows 2 of 4 GPUs" in machine.warnings[0].message


def test_cuda_in_the_order_of_the_driver_leaves_no_doubt() -> None:
    machine = FakeMachine((FakeGpu("NVIDIA L4", bus(0)), FakeGpu("NVIDIA A10", bus(1))))
    assert codes(ask(machine, cuda=[bus(0), bus(1)])) == ["T08"]


def test_cuda_shows_none() -> None:
    assert ask(pairs_by_nvlink(), cuda=[]).no_gpu_reason == "the driver lists 4 GPUs, but CUDA shows none of them"


@pytest.mark.parametrize("seen", [["", ""], ["00000000:ee:00.0"], [bus(0), ""]])
def test_bus_ids_of_cuda_that_the_driver_does_not_know(seen: list[str]) -> None:
    machine = ask(pairs_by_nvlink(), cuda=seen, CUDA_VISIBLE_DEVICES="1,0")
    assert [gpu.nvml_index for gpu in machine.gpus] == [1, 0]
    assert codes(machine)[:2] == ["T01", "T01"]


def test_instances_of_one_gpu_are_one_gpu() -> None:
    machine = ask(pairs_by_nvlink(), cuda=[bus(1), bus(1)])
    assert [gpu.nvml_index for gpu in machine.gpus] == [1]
