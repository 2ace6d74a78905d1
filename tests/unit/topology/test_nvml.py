from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from paratrain.topology.machine import Machine
from paratrain.topology.nvml import normal_bus_id, read_machine
from paratrain.topology.plan import plan_machine
from tests.paths import REPOSITORY
from tests.unit.topology.fake_nvml import FakeGpu, FakeMachine, FakeNvml, LibraryNotFoundError, NVMLError

NOWHERE = Path("/nonexistent")


def bus(number: int) -> str:
    return f"00000000:{number + 7:02x}:00.0"


def ask(machine: FakeMachine, **environment: str) -> Machine:
    fake = FakeNvml(machine)
    found = read_machine(fake, environment, NOWHERE)
    assert fake.open == 0, "what was opened must be closed"
    return found


def words(machine: Machine) -> list[list[str]]:
    return [[machine.link_class(a, b).word for b in machine.indices] for a in machine.indices]


def codes(machine: Machine) -> list[str]:
    return [warning.code for warning in machine.warnings]


def pairs_by_nvlink() -> FakeMachine:
    """Four GPUs: two NVLinks between 0 and 1 and between 2 and 3, one of the latter down; 0-2 PXB, 1-3 PHB."""
    links = {0: (bus(1), bus(1)), 1: (bus(0), bus(0)), 2: (bus(3), ""), 3: (bus(2), "")}
    gpus = tuple(
        FakeGpu("NVIDIA RTX A6000", bus(n), f"GPU-{n}abc", (8, 6), numa_node=n // 2, nvlinks=links[n]) for n in range(4)
    )
    return FakeMachine(gpus, ancestor={(0, 2): 20, (1, 3): 30, (0, 1): 10, (1, 2): 40})


def behind_a_switch(count: int = 8, links: int = 12) -> FakeMachine:
    return FakeMachine(
        tuple(FakeGpu(bus_id=bus(n), uuid=f"GPU-{n}", nvlinks=("switch",) * links) for n in range(count))
    )


def test_no_driver() -> None:
    machine = ask(FakeMachine(init_error=LibraryNotFoundError("NVML Shared Library Not Found")))
    assert machine.gpus == ()
    assert machine.no_gpu_reason == "the NVIDIA driver is not installed (NVML's library was not found)"


def test_a_driver_that_is_not_loaded() -> None:
    assert ask(FakeMachine(init_error=NVMLError("Driver Not Loaded"))).no_gpu_reason == "NVML says: Driver Not Loaded"


def test_no_gpu() -> None:
    machine = ask(FakeMachine())
    assert machine.no_gpu_reason == "the NVIDIA driver lists 0 GPUs"
    assert plan_machine(machine, 1).tree is None


def test_one_gpu() -> None:
    machine = ask(FakeMachine((FakeGpu(mig=True),)))
    (gpu,) = machine.gpus
    assert (gpu.index, gpu.nvml_index, gpu.name, gpu.bus_id) == (0, 0, "NVIDIA A100-SXM4-80GB", "00000000:07:00.0")
    assert (gpu.memory_bytes, gpu.compute_capability, gpu.numa_node) == (80 * 2**30, "8.0", 0)
    assert gpu.cpu_affinity == "0-15,48-64"
    assert (gpu.pcie_generation, gpu.pcie_width, gpu.core_count, gpu.clock_mhz) == (4, 16, 6912, 1410)
    assert (machine.driver_version, machine.cuda_version) == ("580.65.06", "13.0")
    assert codes(machine) == ["T11"]


def test_nvlinks_by_the_bus_id_at_their_other_end() -> None:
    machine = ask(pairs_by_nvlink())
    assert words(machine) == [
        ["X", "NV2", "PXB", "SYS"],
        ["NV2", "X", "NODE", "PHB"],
        ["PXB", "NODE", "X", "NV1"],
        ["SYS", "PHB", "NV1", "X"],
    ]
    assert not machine.nvswitch
    assert [gpu.numa_node for gpu in machine.gpus] == [0, 0, 1, 1]
    assert machine.warnings == ()


def test_nvlinks_through_a_switch() -> None:
    machine = ask(behind_a_switch())
    assert {link.link_class.word for link in machine.links} == {"NV12"}
    assert machine.nvswitch
    assert machine.warnings == ()


def test_a_driver_that_counts_switch_links_only_port_by_port() -> None:
    machine = ask(replace(behind_a_switch(), unsupported=frozenset({"nvmlDeviceGetFieldValues"})))
    assert {link.link_class.word for link in machine.links} == {"NV12"}


def test_a_driver_that_gives_link_states_only_as_fields() -> None:
    machine = ask(replace(pairs_by_nvlink(), unsupported=frozenset({"nvmlDeviceGetNvLinkState"})))
    assert machine.link_class(0, 1).word == "NV2"
    assert machine.link_class(2, 3).word == "NV1"


def test_nvlinks_that_should_be_there() -> None:
    machine = ask(FakeMachine((FakeGpu(bus_id=bus(0)), FakeGpu(bus_id=bus(1)))))
    assert words(machine)[0] == ["X", "SYS"]
    assert codes(machine) == ["T07"]


def test_direct_copies_refused_in_one_direction() -> None:
    machine = ask(replace(pairs_by_nvlink(), p2p={(2, 0): 2}))
    link = machine.link(0, 2)
    assert (link.p2p_read, link.p2p_write) == ("GNS", "GNS")
    assert [(warning.code, warning.pair) for warning in machine.warnings] == [("T02", (0, 2))]


def asked_for(machine: FakeMachine) -> list[str]:
    fake = FakeNvml(machine)
    read_machine(fake, {}, NOWHERE)
    return sorted(fake.asked)


def test_the_stand_in_has_functions_of_the_real_module_only() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    ours = {name for name in dir(FakeNvml) if name.startswith("nvml")}
    assert ours - set(dir(pynvml)) == set()


@pytest.mark.parametrize("machine", [pairs_by_nvlink(), behind_a_switch(2)], ids=["direct", "switch"])
def test_every_call_may_be_unsupported(machine: FakeMachine) -> None:
    for name in asked_for(machine):
        if name in ("nvmlInit", "nvmlShutdown"):
            continue
        found = ask(replace(machine, unsupported=frozenset({name})))
        if name in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
            assert found.gpus == ()
            assert found.no_gpu_reason
        else:
            assert len(found.gpus) == len(machine.gpus), name
            assert plan_machine(found, 1000).tree is not None


def test_no_call_is_supported_but_the_count() -> None:
    machine = pairs_by_nvlink()
    names = set(asked_for(machine)) - {"nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlShutdown"}
    found = ask(replace(machine, unsupported=frozenset(names)))
    assert words(found)[0] == ["X", "?", "?", "?"]
    assert codes(found) == ["T14"]
    tree = plan_machine(found, 1000).tree
    assert tree is not None
    assert tree.depth == 2


def test_the_numa_node_from_linux(tmp_path: Path) -> None:
    machine = replace(pairs_by_nvlink(), unsupported=frozenset({"nvmlDeviceGetMemoryAffinity"}))
    for number, text in ((0, "1\n"), (1, "-1\n"), (2, "no")):
        (tmp_path / bus(number)[4:]).mkdir()
        (tmp_path / bus(number)[4:] / "numa_node").write_text(text)
    assert [gpu.numa_node for gpu in read_machine(FakeNvml(machine), {}, tmp_path).gpus] == [1, None, None, None]


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


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("00000000:3B:00.0", "00000000:3b:00.0"),
        ("0000:3B:00.0", "00000000:3b:00.0"),
        ("3b:00.0", "00000000:3b:00.0"),
        ("", ""),
        ("FFFFFFFF:FF:FF.0\0", "ffffffff:ff:ff.0"),
    ],
)
def test_bus_ids_in_one_spelling(text: str, normal: str) -> None:
    assert normal_bus_id(text) == normal


def test_nothing_heavy_is_imported_for_saved_text() -> None:
    code = (
        "import sys, paratrain.launch.topology, paratrain.launch.device_query, paratrain.topology.matrix\n"
        "print([name for name in ('numpy', 'mpi4py', 'pynvml', 'google.protobuf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pair_that_the_switch_does_not_join() -> None:
    machine = ask(replace(behind_a_switch(3), p2p={(0, 1): 5, (1, 0): 5}, ancestor={(0, 1): 40}))
    assert words(machine) == [["X", "NODE", "NV12"], ["NODE", "X", "NV12"], ["NV12", "NV12", "X"]]
    assert machine.link(0, 1).p2p_read == "NS"
