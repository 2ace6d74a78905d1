"""Machines to ask a fake NVML about, and what is found out of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paratrain.topology.machine import Machine
from paratrain.topology.sources.find import find_machine
from paratrain.topology.sources.nvidia_smi import NvidiaSmiError
from tests.unit.topology.fake_nvml import DOWN, SWITCH, FakeGpu, FakeMachine, FakeNvml

NOWHERE = Path("/nonexistent")


def bus(number: int) -> str:
    return f"00000000:{number + 7:02x}:00.0"


def no_program(arguments: Sequence[str]) -> str:
    raise NvidiaSmiError("nvidia-smi is not on PATH")


def ask(machine: FakeMachine, root: Path = NOWHERE, cuda: Sequence[str] | None = None, **environment: str) -> Machine:
    """What is found out through NVML alone."""
    fake = FakeNvml(machine)
    found = find_machine(environment, fake, root, lambda: cuda, no_program)
    assert fake.open == 0, "what was opened must be closed"
    return found


def words(machine: Machine) -> list[list[str]]:
    return [[machine.link_class(a, b).word for b in machine.indices] for a in machine.indices]


def codes(machine: Machine) -> list[str]:
    return [warning.code for warning in machine.warnings]


def pairs_by_nvlink() -> FakeMachine:
    """Four GPUs: two NVLinks between 0 and 1 and between 2 and 3, one of the latter down; 0-2 PXB, 1-3 PHB."""
    links = {0: (bus(1), bus(1)), 1: (bus(0), bus(0)), 2: (bus(3), DOWN), 3: (bus(2), DOWN)}
    gpus = tuple(
        FakeGpu("NVIDIA RTX A6000", bus(n), f"GPU-{n}abc", (8, 6), numa_node=n // 2, nvlinks=links[n]) for n in range(4)
    )
    return FakeMachine(gpus, ancestor={(0, 2): 20, (1, 3): 30, (0, 1): 10, (1, 2): 40})


def behind_a_switch(count: int = 8, links: int = 12) -> FakeMachine:
    return FakeMachine(tuple(FakeGpu(bus_id=bus(n), uuid=f"GPU-{n}", nvlinks=(SWITCH,) * links) for n in range(count)))
