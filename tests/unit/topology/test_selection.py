from __future__ import annotations

import re

import pytest

from paratrain.errors import DeviceError
from paratrain.topology.machine import Gpu, Machine
from paratrain.topology.selection import select_gpus

TWO = Machine((Gpu(0), Gpu(1)))


@pytest.mark.parametrize(
    ("text", "chosen"), [("0", [0]), ("1", [1]), ("0,1", [0, 1]), ("1, 0", [1, 0]), ("all", [0, 1]), ("ALL", [0, 1])]
)
def test_gpus_that_are_there(text: str, chosen: list[int]) -> None:
    assert select_gpus(text, TWO) == chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7", "-gpu 7: this machine has 2 GPUs (0, 1)"),
        ("0,2", "-gpu 0,2: this machine has 2 GPUs (0, 1)"),
        ("x", "-gpu x: expected numbers as in 0,1 or the word all, found 'x'"),
        ("-1", "-gpu -1: expected numbers as in 0,1 or the word all, found '-1'"),
        ("", "-gpu : expected numbers as in 0,1 or the word all, found nothing"),
        ("0,", "-gpu 0,: expected numbers as in 0,1 or the word all, found nothing"),
        ("0,0", "-gpu 0,0: GPU 0 is named twice"),
    ],
)
def test_gpus_that_are_not(text: str, message: str) -> None:
    with pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
        select_gpus(text, TWO)


@pytest.mark.parametrize("text", ["0", "all"])
def test_a_machine_without_gpus(text: str) -> None:
    machine = Machine(no_gpu_reason="NVML says: Driver Not Loaded")
    message = "no NVIDIA GPU: NVML says: Driver Not Loaded; leave out -gpu or use --cpu"
    with pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
        select_gpus(text, machine)
