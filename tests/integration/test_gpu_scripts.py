"""scripts/gpu/check_links, with GPUs that are files."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from paratrain.topology.machine import Gpu, Machine
from tests.unit.linktest.fake_gpus import RUNTIME


@pytest.fixture
def script(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, on a machine with one fake GPU."""
    path = repository / "scripts/gpu/check_links"
    if not path.is_file():
        pytest.skip("no checkout around these tests")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("FAKE_GPUS", str(tmp_path))
    (tmp_path / "faults.json").write_text("{}")
    loader = SourceFileLoader("check_links_script", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    machine = Machine((Gpu(0, name="A", bus_id="0"),), source="a test", driver_version="580.1")
    monkeypatch.setattr(module, "find_machine", lambda: machine)
    monkeypatch.setattr("paratrain.topology.sources.find.find_machine", lambda: machine)
    monkeypatch.setattr(module, "check_links", functools.partial(module.check_links, runtime=RUNTIME))
    return module


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["check_links", *arguments])
    code: int = script.main()
    return code


def test_two_processes_on_one_gpu(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, monkeypatch, "--json", str(tmp_path / "found.json")) == 0
    assert "Two processes on GPU0 (A):" in capsys.readouterr().out
    tests = json.loads((tmp_path / "found.json").read_text())["tests"]
    assert [(test["transport"], test["verified"]) for test in tests] == [("ipc", "ok"), ("host", "ok")]
    assert all(test["gbps"] > 0 and test["latency_us"] > 0 for test in tests)


def test_wrong_data_is_an_exit_code(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faults.json").write_text('{"0-0": "corrupt"}')
    assert run(script, monkeypatch) == 1
    assert "ipc: from GPU 0 to GPU 1: 1 of 1048613 bytes are wrong" in capsys.readouterr().out


def test_a_machine_without_a_gpu(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "find_machine", lambda: Machine(no_gpu_reason="none was bought"))
    assert run(script, monkeypatch) == 1
    assert "no GPU: none was bought" in capsys.readouterr().err
