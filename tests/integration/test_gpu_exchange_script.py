"""scripts/gpu/check_exchange, with GPUs that are faked."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from paratrain.comm import Communicator
from paratrain.comm.cuda import CupyDevice
from paratrain.comm.threads import run_threads
from paratrain.topology.machine import Machine
from tests.unit.comm import fake_cupy
from tests.unit.comm.fake_gpu import FakeArray, FakeDevice
from tests.unit.comm.fake_gpu import Machine as FakeMachine


@pytest.fixture
def script(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    path = repository / "scripts/gpu/check_exchange"
    if not path.is_file():
        pytest.skip("no checkout around these tests")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("check_exchange_script", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "COUNTS", (0, 1, 1000))
    monkeypatch.setattr(module, "STEPS", 1)
    return module


def check(script: ModuleType, kind: type[FakeDevice], **settings: Any) -> dict[str, Any]:
    machine = FakeMachine()

    def rank(communicator: Communicator) -> dict[str, Any]:
        found: dict[str, Any] = script.check(communicator, kind(machine, 0, **settings), 5000)
        return found

    return run_threads(2, rank)[0]


def test_two_ranks_on_one_gpu(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    found = check(script, FakeDevice)
    assert found["is_right"]
    assert [(row["exchange"], row["through"]) for row in found["exchanges"]] == list(script.WAYS[:-1])
    printed = capsys.readouterr().out
    assert "nccl      NCCL        not tested: ranks 0 and 1 share GPU 0 of node 0" in printed
    assert printed.count("right") == 5


class Wrong(FakeDevice):
    """Loses what others write into its memory, as some machines do."""

    def copy(self, source: FakeArray, destination: FakeArray) -> None:
        if destination._owner is not None:
            super().copy(source, destination)


def test_lost_writes_are_found(script: ModuleType) -> None:
    found = check(script, Wrong)
    assert not found["is_right"]
    assert [bool(row["problem"]) for row in found["exchanges"]] == [True, True, False, False, False]
    assert all("WRONG" in row["problem"] for row in found["exchanges"][:2])


def test_where_cuda_refuses_it_says_so(script: ModuleType) -> None:
    found = check(script, FakeDevice, refuses="open")
    assert "cannot use the memory of rank 1's GPU" in found["exchanges"][0]["problem"]


class OwnProcess(CupyDevice):
    """Each rank as if it were a process of its own."""

    @property
    def process(self) -> str:
        return str(id(self))


@pytest.mark.parametrize("kind", [CupyDevice, OwnProcess])
def test_the_way_to_cupy(script: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: type[CupyDevice]) -> None:
    fake_cupy.install(monkeypatch)

    def rank(communicator: Communicator) -> Any:
        return script.check(communicator, kind(0), 20_000)

    assert run_threads(3, rank)[0]["is_right"]
    calls = fake_cupy.calls
    assert calls["ipcOpenMemHandle"] == calls["ipcCloseMemHandle"]
    assert calls["hostRegister"] == calls["hostUnregister"]
    assert (calls["ipcOpenMemHandle"] > 0) == (kind is OwnProcess)


def test_a_machine_without_a_gpu(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check_exchange"])
    monkeypatch.setattr(script, "find_machine", lambda: Machine(no_gpu_reason="none was bought"))
    assert script.main() == 0
    assert capsys.readouterr().out == "no GPU, nothing was tested: none was bought\n"
