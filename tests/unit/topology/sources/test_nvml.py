from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from paratrain.topology.machine import LinkKind
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.sources.nvml import read_machine
from paratrain.topology.sources.pci import normal_bus_id
from tests.paths import REPOSITORY
from tests.unit.topology.asked import NOWHERE, ask, behind_a_switch, bus, codes, pairs_by_nvlink, words
from tests.unit.topology.fake_nvml import (
    DOWN,
    NAMELESS,
    PROCESSOR,
    FakeGpu,
    FakeMachine,
    FakeNvml,
    LibraryNotFoundError,
    NVMLError,
)
from tests.unit.topology.fake_sysfs import add_device


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


QUESTIONS = sorted({*asked_for(pairs_by_nvlink()), *asked_for(behind_a_switch(2))} - {"nvmlInit", "nvmlShutdown"})
_SPEED = list(LinkKind)  # from the nearest to the farthest
REFUSALS = [NVMLError("Not Supported"), ValueError("unexpected"), AttributeError("an old pynvml"), OSError("segment")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal).__name__)
@pytest.mark.parametrize("machine", [pairs_by_nvlink(), behind_a_switch(2)], ids=["direct", "switch"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_call_may_fail(name: str, machine: FakeMachine, refusal: Exception) -> None:
    whole, found = ask(machine), ask(replace(machine, unsupported=frozenset({name}), error=refusal))
    if name in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
        assert found.gpus == ()
        assert found.no_gpu_reason
        return
    assert [gpu.index for gpu in found.gpus] == [gpu.index for gpu in whole.gpus]
    assert plan_machine(found, 1000).tree is not None
    for a, b in ((link.a, link.b) for link in whole.links):
        said, best = found.link_class(a, b), whole.link_class(a, b)
        weaker = "NvLink" in name or name in ("nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetFieldValues")
        weaker = weaker or name.startswith("nvmlDeviceGetPciInfo")
        assert said == best or (weaker and _SPEED.index(said.kind) >= _SPEED.index(best.kind)), (name, a, b)


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(
    "answer", [None, "", b"\xff", -1, 1e9, (), [None], object()], ids=lambda answer: type(answer).__name__
)
def test_every_call_may_answer_nonsense(name: str, answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeNvml, name, lambda *_: answer)
    machine = ask(behind_a_switch(2))
    assert plan_machine(machine, 1000).tree is not None or machine.no_gpu_reason


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
    for number, text in ((0, "1"), (1, "-1"), (2, "no")):
        add_device(tmp_path, f"pci0000:00/{bus(number)[4:]}", numa_node=text)
    assert [gpu.numa_node for gpu in ask(machine, tmp_path).gpus] == [1, None, None, None]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("00000000:3B:00.0", "00000000:3b:00.0"),
        ("0000:3B:00.0", "00000000:3b:00.0"),
        ("3b:00.0", "00000000:3b:00.0"),
        ("", ""),
        ("FFFFFFFF:FF:FF.0\0", ""),
        ("00010000:0a:1f.7", "00010000:0a:1f.7"),
        ("\x01\x02garbage", ""),
        ("0000:3B:00.9", ""),
    ],
)
def test_bus_ids_in_one_spelling(text: str, normal: str) -> None:
    assert normal_bus_id(text) == normal


def test_nothing_heavy_is_imported_for_saved_text() -> None:
    code = (
        "import sys, paratrain.launch.topology, paratrain.launch.device_query, paratrain.topology.text.matrix\n"
        "print([name for name in ('numpy', 'mpi4py', 'pynvml', 'google.protobuf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pair_that_the_switch_does_not_join() -> None:
    machine = ask(replace(behind_a_switch(3), p2p={(0, 1): 5, (1, 0): 5}, ancestor={(0, 1): 40}))
    assert words(machine) == [["X", "NODE", "NV12"], ["NODE", "X", "NV12"], ["NV12", "NV12", "X"]]
    assert machine.link(0, 1).p2p_read == "NS"


def test_an_nvlink_that_only_one_end_takes_to_be_up() -> None:
    machine = pairs_by_nvlink()
    gpus = (replace(machine.gpus[0], nvlinks=(bus(1), bus(1))), replace(machine.gpus[1], nvlinks=(bus(0), DOWN)))
    assert ask(replace(machine, gpus=gpus)).link_class(0, 1).word == "NV1"


def test_nvlinks_to_the_processor_are_no_links_between_gpus() -> None:
    machine = pairs_by_nvlink()
    gpus = tuple(replace(gpu, nvlinks=(*gpu.nvlinks, PROCESSOR, PROCESSOR)) for gpu in machine.gpus)
    assert words(ask(replace(machine, gpus=gpus))) == words(ask(machine))


def test_nvlinks_whose_other_end_has_no_name() -> None:
    gpus = tuple(FakeGpu(bus_id=bus(n), uuid=f"GPU-{n}", nvlinks=(NAMELESS,) * 12) for n in range(3))
    machine = ask(FakeMachine(gpus, p2p={(0, 1): 5, (1, 0): 5}))
    assert words(machine) == [["X", "SYS", "NV12"], ["SYS", "X", "NV12"], ["NV12", "NV12", "X"]]
    assert codes(machine) == ["T14"]
    assert "does not say where the NVLinks of GPU0, GPU1, GPU2 end" in machine.warnings[0].message


def test_direct_nvlinks_to_gpus_without_a_name() -> None:
    unsupported = frozenset({"nvmlDeviceGetNvLinkRemotePciInfo"})
    machine = ask(replace(pairs_by_nvlink(), unsupported=unsupported))
    assert words(machine)[0] == ["X", "NV1", "PXB", "SYS"]
    assert codes(machine) == ["T14"]


def test_an_nvswitch_that_only_linux_knows(tmp_path: Path) -> None:
    switch = "00000000:c1:00.0"
    gpus = tuple(FakeGpu(bus_id=bus(n), uuid=f"GPU-{n}", nvlinks=(switch,) * 6) for n in range(4))
    add_device(tmp_path, f"pci0000:c0/{switch[4:]}", **{"class": "0x068000"})
    unsupported = frozenset({"nvmlDeviceGetNvLinkRemoteDeviceType", "nvmlDeviceGetFieldValues"})
    machine = ask(FakeMachine(gpus, unsupported=unsupported), tmp_path)
    assert {link.link_class.word for link in machine.links} == {"NV6"}
    assert machine.nvswitch


def test_nvlinks_to_gpus_that_a_container_does_not_get() -> None:
    hidden = "00000000:e0:00.0"
    gpus = tuple(FakeGpu("NVIDIA V100", bus(n), f"GPU-{n}", nvlinks=(hidden,) * 4 + (bus(1 - n),)) for n in range(2))
    machine = ask(FakeMachine(gpus))
    assert words(machine) == [["X", "NV1"], ["NV1", "X"]]
    assert not machine.nvswitch


def test_two_gpus_of_one_board() -> None:
    gpus = tuple(FakeGpu("Tesla K80", bus(n), f"GPU-{n}", board=n // 2 + 0x300) for n in range(4))
    machine = ask(FakeMachine(gpus, ancestor={(0, 1): 20}))
    assert words(machine)[0] == ["X", "PIX", "SYS", "SYS"]
    assert [gpu.board for gpu in machine.gpus] == ["0x300", "0x300", "0x301", "0x301"]


@pytest.mark.parametrize(("state", "words_of_it"), [(0, ""), (1, "not started"), (2, "in progress"), (3, "completed")])
def test_the_fabric_of_nvswitches(state: int, words_of_it: str) -> None:
    gpus = tuple(replace(gpu, fabric_state=state) for gpu in behind_a_switch(2).gpus)
    machine = ask(FakeMachine(gpus))
    assert [gpu.fabric for gpu in machine.gpus] == [words_of_it] * 2
    assert codes(machine) == (["T07"] if state in (1, 2) else [])
    clique = bytes(range(16)).hex() + ".7"
    assert machine.gpus[0].fabric_clique == (clique if state == 3 else "")


def test_a_display_and_a_slot_that_is_not_used_whole() -> None:
    gpus = (
        FakeGpu(bus_id=bus(0), nvlinks=(bus(1),), display=True, width_now=8),
        FakeGpu(bus_id=bus(1), nvlinks=(bus(0),), generation_now=1),  # idle
    )
    machine = ask(FakeMachine(gpus))
    assert codes(machine) == ["T15", "T16"]
    assert "GPU0 runs at x8, but GPU and slot can do x16" in machine.warnings[1].message
    busy = tuple(replace(gpu, performance_state=0, width_now=16, display=False) for gpu in gpus)
    assert [warning.message[:42] for warning in ask(FakeMachine(busy)).warnings] == [
        "the PCIe link of GPU0 runs at generation 1",
        "the PCIe link of GPU1 runs at generation 1",
    ]


def test_a_gpu_that_cannot_be_opened() -> None:
    machine = ask(replace(pairs_by_nvlink(), lost=frozenset({1})))
    assert machine.indices == (0, 2, 3)
    assert machine.warnings[0].message == "NVML lists GPU1 but cannot open it; it is left out"


def test_mig_on_one_of_several() -> None:
    machine = pairs_by_nvlink()
    found = ask(replace(machine, gpus=(replace(machine.gpus[0], mig=True), *machine.gpus[1:])))
    assert [gpu.mig for gpu in found.gpus] == [True, False, False, False]
    assert codes(found) == ["T11"]
