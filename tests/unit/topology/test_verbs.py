from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paratrain.errors import DeviceError, ParatrainError, TopologyError
from paratrain.launch import device_query, topology
from paratrain.topology.known_machines import known_machine, machine_names
from paratrain.topology.machine import Gpu, Machine
from paratrain.topology.show.draw import WIDTH
from paratrain.topology.sources import find
from paratrain.topology.text.matrix import read_machine

TEXT = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity
GPU0\t X \tPHB\tSOC\tSOC\t0-9
GPU1\tPHB\t X \tSOC\tSOC\t0-9
GPU2\tSOC\tSOC\t X \tPHB\t10-19
GPU3\tSOC\tSOC\tPHB\t X \t10-19
"""


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="paratrain")
    subparsers = parser.add_subparsers(required=True)
    topology.add_parser(subparsers)
    device_query.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    code = parsed.run(parsed)
    assert isinstance(code, int)
    return code


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "box.txt"
    path.write_text(TEXT)
    return str(path)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert call("topology", *arguments, "--json") == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


def test_json_of_saved_text(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = as_json(capsys, "--from", saved)
    assert values["schema"] == 1
    assert [gpu["index"] for gpu in values["gpus"]] == [0, 1, 2, 3]
    assert values["gpus"][3]["cpus"] == "10-19"
    assert [(link["a"], link["b"], link["class"]) for link in values["links"]] == [
        (0, 1, "PHB"),
        (0, 2, "SYS"),
        (0, 3, "SYS"),
        (1, 2, "SYS"),
        (1, 3, "SYS"),
        (2, 3, "PHB"),
    ]
    tree = values["tree"]
    assert (tree["members"], tree["shape"], tree["root"], tree["depth"]) == ("gpus", "tree", 0, 2)
    assert [(edge["parent"], edge["child"], edge["level"], edge["class"]) for edge in tree["edges"]] == [
        (0, 1, 1, "PHB"),
        (0, 2, 1, "SYS"),
        (2, 3, 2, "PHB"),
    ]
    assert tree["edges"][0]["transport"] == "ipc"
    assert tree["edges"][0]["reason"].startswith("direct copy: the way leads through one PCIe host bridge")
    assert values["predictions"][0]["bytes"] == 1_724_320
    assert values["predictions"][0]["source"] == "default"
    assert values["warnings"] == []


def test_some_gpus_a_root_and_a_size(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = as_json(capsys, "-from", saved, "-gpus", "1,3,2", "-root", "2", "-bytes", "64M")
    assert [gpu["index"] for gpu in values["gpus"]] == [1, 3, 2]
    assert values["tree"]["root"] == 2
    assert {edge["child"] for edge in values["tree"]["edges"]} == {1, 3}
    assert values["predictions"][0]["bytes"] == 64_000_000


def test_warnings_go_to_standard_error_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "cut.txt"
    path.write_text(TEXT[: TEXT.index("GPU3\tSOC")])
    assert call("topology", "--from", str(path), "--json") == 0
    output = capsys.readouterr()
    assert [warning["code"] for warning in json.loads(output.out)["warnings"]] == ["T13"]
    assert output.err.startswith("warning T13: ")


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))
    assert as_json(capsys, "--from", "-")["source"] == "standard input"


@pytest.mark.parametrize("name", machine_names())
def test_the_picture_reads_back_as_the_machine(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("topology", "--machine", name) == 0
    picture = capsys.readouterr().out
    machine = known_machine(name)
    again = read_machine(picture, "picture") if len(machine.gpus) <= 8 else None
    assert all(len(line) <= WIDTH for line in picture.splitlines())
    assert picture.isascii()
    if again is not None:
        assert again.links == machine.links
        assert [gpu.index for gpu in again.gpus] == [gpu.index for gpu in machine.gpus]


def test_the_picture(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    call("topology", "--from", saved, "--bytes", "88k", "--tree", "tree", "--root", "0")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"4 GPUs (source: {saved})" or lines[0].startswith("4 GPUs (source: ")
    matrix = lines.index("     GPU0  GPU1  GPU2  GPU3")
    assert lines[matrix + 1 :] == [
        "GPU0    X   PHB*  SYS*  SYS",
        "GPU1  PHB*    X   SYS   SYS",
        "GPU2  SYS*  SYS     X   PHB*",
        "GPU3  SYS   SYS   PHB*    X",
        "* an edge of the tree",
        "P2P: driver did not say, not tested: every pair",
        "",
        "Tree (root GPU0, depth 2): gradients go up it, parameters down",
        "  GPU0",
        "  |-- GPU1      PHB  8.8 GB/s  5.0 us  default  CUDA IPC [1]",
        "  `-- GPU2      SYS  8.8 GB/s  6.0 us  default  CUDA IPC [2]",
        "      `-- GPU3  PHB  8.8 GB/s  5.0 us  default  CUDA IPC [1]",
        "  [1] direct copy: the way leads through one PCIe host bridge; nobody asked the driver whether it",
        "      allows P2P",
        "  [2] direct copy: the way leads from one socket to another; nobody asked the driver whether it",
        "      allows P2P",
        "",
        "Predicted for 88 kB:",
        "    method                               up   down   both",
        "  * tree                              31 us  31 us  62 us",
        "    tree in the order of the indices  31 us  31 us  62 us",
        "  * the fastest; times +-50%; figures of the links: the defaults of topology/links.json",
    ]


def test_the_names_of_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("topology", "--machine", "list") == 0
    assert capsys.readouterr().out.split() == machine_names()


def test_input_that_cannot_be_used(saved: str, tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"none\.txt: cannot be read: No such file or directory"):
        call("topology", "--from", str(tmp_path / "none.txt"))
    with pytest.raises(TopologyError, match="Is a directory"):
        call("topology", "--from", str(tmp_path))
    with pytest.raises(DeviceError, match=r"--gpus 7: this machine has 4 GPUs \(0, 1, 2, 3\)"):
        call("topology", "--from", saved, "--gpus", "7")
    with pytest.raises(TopologyError, match="root 3"):
        call("topology", "--from", saved, "--gpus", "0,1", "--root", "3")


@pytest.mark.parametrize("text", ["0", "-4", "much", "1T", ""])
def test_sizes_that_are_none(text: str, saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call("topology", "--from", saved, f"--bytes={text}")
    assert caught.value.code == 2
    assert "is no size; expected a number of bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("1.5k", 1500), ("2K", 2000), ("64MB", 64 * 10**6), ("1G", 10**9)]
)
def test_sizes(text: str, count: int) -> None:
    assert topology.byte_count(text) == count


def set_machine(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(find, "find_machine", lambda: machine)
    monkeypatch.setattr(device_query, "find_machine", lambda: machine)


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    set_machine(monkeypatch, Machine(source="NVML", no_gpu_reason="NVML says: Driver Not Loaded"))
    assert call("topology") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no NVIDIA GPU: NVML says: Driver Not Loaded"
    assert lines[1].startswith("Ranks on CPU cores use a binomial tree")
    assert "  rank 0" in lines
    values = as_json(capsys)
    assert (values["gpus"], values["links"], values["no_gpu_reason"]) == ([], [], "NVML says: Driver Not Loaded")
    assert (values["tree"]["members"], values["tree"]["root"], values["tree"]["shape"]) == ("ranks", 0, "index")
    assert call("device_query") == 0
    assert capsys.readouterr().out == "no NVIDIA GPU: NVML says: Driver Not Loaded\n"
    for arguments in (["device_query", "-gpu", "0"], ["device_query", "--gpu=all"], ["topology", "--gpus", "0"]):
        with pytest.raises(ParatrainError, match="no NVIDIA GPU: NVML says: Driver Not Loaded; leave out -"):
            call(*arguments)


def test_device_query(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first = Gpu(
        0, "Tesla T4", "00000000:3b:00.0", "GPU-1", 16 * 2**30, 15 * 2**30, compute_capability="7.5", nvml_index=4
    )
    set_machine(monkeypatch, Machine((first, Gpu(1, "Tesla T4")), driver_version="580.65.06"))
    assert call("device_query") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Device id: 0 (GPU 4 for nvidia-smi)"
    assert "Name: Tesla T4" in lines
    assert "Major revision number: 7" in lines
    assert "Minor revision number: 5" in lines
    assert "Total global memory: 17179869184 bytes (16.0 GiB)" in lines
    assert "PCI bus id: 00000000:3b:00.0" in lines
    assert "Driver version: 580.65.06" in lines
    assert "NUMA node: not told by the driver" in lines
    assert call("device_query", "-gpu", "1") == 0
    assert capsys.readouterr().out.startswith("Device id:                  1\n")
    with pytest.raises(DeviceError, match=r"-gpu 7: this machine has 2 GPUs \(0, 1\)"):
        call("device_query", "-gpu", "7")
