from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from paratrain.topology.machine import Machine
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.sources import cuda, nvidia_smi
from paratrain.topology.sources.find import find_machine
from paratrain.topology.sources.nvidia_smi import NvidiaSmiError
from tests.unit.topology.fake_nvml import FakeGpu, FakeMachine, FakeNvml, LibraryNotFoundError, NVMLError
from tests.unit.topology.fake_sysfs import add_gpu, add_numa_nodes

NO_DRIVER = FakeNvml(FakeMachine(init_error=LibraryNotFoundError("NVML Shared Library Not Found")))
BUS_IDS = ["00000000:3d:00.0", "00000000:3e:00.0", "00000000:af:00.0"]
PATHS = [
    "pci0000:3a/0000:3a:00.0/0000:3b:00.0/0000:3c:00.0/0000:3d:00.0",
    "pci0000:3a/0000:3a:00.0/0000:3b:00.0/0000:3c:04.0/0000:3e:00.0",
    "pci0000:ae/0000:ae:00.0/0000:af:00.0",
]
LIST = "".join(
    f"{index}, {bus_id.upper()}, GPU-{index}abc, Tesla V100-SXM2-16GB, 16160, 7.0\n"
    for index, bus_id in enumerate(BUS_IDS)
)
MATRIX = """\
\tGPU0\tGPU1\tGPU2\tCPU Affinity
GPU0\t X \tNV2\tSYS\t0-3
GPU1\tNV2\t X \tSYS\t0-3
GPU2\tSYS\tSYS\t X \t4-7
"""


def words(machine: Machine) -> list[list[str]]:
    return [[machine.link_class(a, b).word for b in machine.indices] for a in machine.indices]


def program(listing: str | None = LIST, matrix: str | None = MATRIX) -> Callable[[Sequence[str]], str]:
    """A stand-in for nvidia-smi; None for what it fails to print."""

    def run(arguments: Sequence[str]) -> str:
        text = matrix if arguments[0] == "topo" else listing
        if text is None:
            raise NvidiaSmiError(f"nvidia-smi {' '.join(arguments)} failed with exit code 255: Failed to run")
        return text

    return run


def find(
    root: Path = Path("/nonexistent"),
    run: Callable[[Sequence[str]], str] | None = None,
    seen: Sequence[str] | None = None,
    library: FakeNvml = NO_DRIVER,
    **environment: str,
) -> Machine:
    return find_machine(environment, library, root, lambda: seen, run or program(None, None))


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    add_numa_nodes(tmp_path, "0-3", "4-7")
    for path, node in zip(PATHS, (0, 0, 1), strict=True):
        add_gpu(tmp_path, path, node)
    return tmp_path


def test_the_program_where_nvml_is_missing(linux: Path) -> None:
    machine = find(linux, program())
    assert machine.source == "nvidia-smi topo -m"
    assert words(machine) == [["X", "NV2", "SYS"], ["NV2", "X", "SYS"], ["SYS", "SYS", "X"]]
    assert machine.gpus[1].name == "Tesla V100-SXM2-16GB"
    assert (machine.gpus[1].memory_bytes, machine.gpus[1].compute_capability) == (16160 * 2**20, "7.0")
    assert machine.gpus[2].numa_node == 1
    assert machine.warnings[0].code == "T14"
    assert "NVML's library was not found); the links are from nvidia-smi topo -m" in machine.warnings[0].message


def test_the_numbers_are_cudas_even_there() -> None:
    machine = find(run=program(), seen=[BUS_IDS[2], BUS_IDS[0]])
    assert [gpu.nvml_index for gpu in machine.gpus] == [2, 0]
    assert find(run=program(), CUDA_VISIBLE_DEVICES="1,0").gpus[0].nvml_index == 1


def test_linux_where_the_matrix_fails(linux: Path) -> None:
    machine = find(linux, program(matrix=None))
    assert machine.source == "Linux's PCI tree"
    assert words(machine) == [["X", "PIX", "SYS"], ["PIX", "X", "SYS"], ["SYS", "SYS", "X"]]
    assert machine.gpus[0].name == "Tesla V100-SXM2-16GB"
    assert "exit code 255" in machine.warnings[0].message


@pytest.mark.parametrize("matrix", ["Failed to run topology matrix\n", "", MATRIX.replace("GPU2", "GPU5")])
def test_linux_where_the_matrix_is_of_no_use(linux: Path, matrix: str) -> None:
    assert find(linux, program(matrix=matrix)).source == "Linux's PCI tree"


def test_linux_alone(linux: Path) -> None:
    machine = find(linux)
    assert [gpu.name for gpu in machine.gpus] == ["Tesla V100"] * 3
    assert words(machine)[0] == ["X", "PIX", "SYS"]
    assert {warning.code for warning in machine.warnings} == {"T09", "T14", "T16"}


def test_a_guess_from_cuda_alone() -> None:
    machine = find(seen=BUS_IDS)
    assert machine.source == "a guess"
    assert words(machine)[0] == ["X", "?", "?"]
    assert [warning.code for warning in machine.warnings] == ["T14", "T14"]
    assert plan_machine(machine, 1000).tree is not None


def test_a_guess_from_the_list_alone() -> None:
    machine = find(run=program(matrix=None))
    assert (machine.source, len(machine.gpus)) == ("a guess", 3)


def test_nothing_at_all() -> None:
    machine = find()
    assert machine.gpus == ()
    assert machine.no_gpu_reason == "the NVIDIA driver is not installed (NVML's library was not found)"
    assert machine.warnings == ()


def test_a_gpu_without_nvidias_driver(tmp_path: Path) -> None:
    add_gpu(tmp_path, PATHS[0], driver="nouveau")
    assert find(tmp_path).no_gpu_reason.endswith("(NVML's library was not found); the NVIDIA GPU at 00000000:3d:00.0 is "
                                                 "served by nouveau, not by NVIDIA's driver")  # fmt: skip


def test_a_driver_that_grants_no_gpu_has_the_last_word(linux: Path) -> None:
    machine = find(linux, program(), BUS_IDS, FakeNvml(FakeMachine()))
    assert machine.no_gpu_reason == "the NVIDIA driver lists 0 GPUs"


def test_links_that_nvml_leaves_open_are_linuxs(linux: Path) -> None:
    gpus = tuple(FakeGpu("Tesla V100", bus_id, bus_id, numa_node=n // 2) for n, bus_id in enumerate(BUS_IDS))
    refused = frozenset({"nvmlDeviceGetTopologyCommonAncestor"})
    machine = find(linux, library=FakeNvml(FakeMachine(gpus, unsupported=refused)))
    assert words(machine) == [["X", "PIX", "SYS"], ["PIX", "X", "SYS"], ["SYS", "SYS", "X"]]
    assert machine.warnings[0].code == "T14"
    assert "0-1, 0-2, 1-2; Linux's PCI tree does" in machine.warnings[0].message
    assert machine.gpus[0].pci_path[0] == "pci0000:3a"


def test_a_driver_that_fails_in_its_own_way() -> None:
    for error in (NVMLError("Driver Not Loaded"), RuntimeError(), OSError("no such symbol")):
        assert find(library=FakeNvml(FakeMachine(init_error=error))).no_gpu_reason.startswith("NVML says: ")


@pytest.mark.parametrize(
    "listing", ["", "No devices were found\n", "0, 1\n", "x, y, z, a, b, c\n", "\0\xff,,,,,\n", LIST.replace(", ", ";")]
)
def test_lists_of_no_use(listing: str) -> None:
    with pytest.raises(NvidiaSmiError, match="lists no GPU"):
        nvidia_smi.read_gpus(program(listing))


def test_a_list_with_gaps() -> None:
    (gpu,) = nvidia_smi.read_gpus(program("3, [N/A], [N/A], [Not Supported], [N/A], [N/A]\n"))
    assert (gpu.index, gpu.bus_id, gpu.uuid, gpu.name, gpu.memory_bytes) == (3, "", "", "", None)


def executable(folder: Path, script: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_real_program_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    executable(tmp_path, 'echo "$@ $LC_ALL"')
    assert nvidia_smi.run(["topo", "-m"]) == "topo -m C\n"
    executable(tmp_path, "echo Failed to run topology matrix; exit 255")
    with pytest.raises(NvidiaSmiError, match="topo -m failed with exit code 255: Failed to run topology matrix"):
        nvidia_smi.run(["topo", "-m"])
    executable(tmp_path, "exec sleep 60")
    begin = time.monotonic()
    with pytest.raises(NvidiaSmiError, match=r"did not end within 0\.2 s"):
        nvidia_smi.run(["topo", "-m"], limit_s=0.2)
    assert time.monotonic() - begin < 30


def test_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NvidiaSmiError, match="nvidia-smi is not on PATH"):
        nvidia_smi.run(["topo", "-m"])


def test_cuda_without_its_library() -> None:
    assert cuda.visible_bus_ids(["libnotthere.so.1"]) is None
    assert cuda.visible_bus_ids(["libc.so.6"]) is None  # a library that is not CUDA's
