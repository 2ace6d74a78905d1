from __future__ import annotations

from pathlib import Path

import pytest

from paratrain.topology.machine import Link, LinkClass, Machine
from paratrain.topology.sources import iommu, sysfs
from paratrain.topology.sources.pci import PciTree, path_class
from tests.unit.topology.fake_sysfs import add_device, add_gpu, add_numa_nodes, configuration_space

# Socket 0 has a switch behind each of two root ports of one host bridge, and a second host bridge; socket 1 has one.
SWITCH = "pci0000:3a/0000:3a:00.0/0000:3b:00.0"
GPUS = [
    f"{SWITCH}/0000:3c:00.0/0000:3d:00.0",  # GPU0
    f"{SWITCH}/0000:3c:04.0/0000:3e:00.0",  # GPU1: the same switch
    f"{SWITCH}/0000:3c:08.0/0000:40:00.0/0000:41:00.0/0000:42:00.0",  # GPU2: a switch behind that switch
    "pci0000:3a/0000:3a:02.0/0000:50:00.0",  # GPU3: the same host bridge
    "pci0000:5d/0000:5d:00.0/0000:5e:00.0",  # GPU4: another host bridge of the node
    "pci0000:ae/0000:ae:00.0/0000:af:00.0",  # GPU5: the other node
]
NODES = [0, 0, 0, 0, 0, 1]


def words(machine: Machine) -> list[list[str]]:
    return [[machine.link_class(a, b).word for b in machine.indices] for a in machine.indices]


@pytest.fixture
def box(tmp_path: Path) -> Path:
    add_numa_nodes(tmp_path, "0-3", "4-7")
    for path, node in zip(GPUS, NODES, strict=True):
        add_gpu(tmp_path, path, node)
    add_device(tmp_path, "pci0000:00/0000:00:1f.3", vendor="0x8086", **{"class": "0x040300"})
    add_device(tmp_path, "pci0000:3a/0000:3a:02.0/0000:50:00.1", vendor="0x10de", **{"class": "0x040300"})  # its sound
    return tmp_path


def test_classes_follow_the_pci_tree(box: Path) -> None:
    machine = sysfs.read_machine(box)
    assert words(machine) == [
        ["X", "PIX", "PXB", "PHB", "NODE", "SYS"],
        ["PIX", "X", "PXB", "PHB", "NODE", "SYS"],
        ["PXB", "PXB", "X", "PHB", "NODE", "SYS"],
        ["PHB", "PHB", "PHB", "X", "NODE", "SYS"],
        ["NODE", "NODE", "NODE", "NODE", "X", "SYS"],
        ["SYS", "SYS", "SYS", "SYS", "SYS", "X"],
    ]


def test_what_linux_says_of_a_gpu(box: Path) -> None:
    gpu = sysfs.read_machine(box).gpus[3]
    assert (gpu.bus_id, gpu.name, gpu.uuid) == ("00000000:50:00.0", "Tesla V100", "GPU-0000:50:00.0")
    assert (gpu.numa_node, gpu.cpu_affinity) == (0, "0-3")
    assert (gpu.pcie_generation, gpu.pcie_generation_now, gpu.pcie_width, gpu.pcie_width_now) == (4, 1, 16, 8)
    assert gpu.pci_path == ("pci0000:3a", "00000000:3a:02.0", "00000000:50:00.0")


def test_no_numa_node_is_known(tmp_path: Path) -> None:
    for path in GPUS[3:]:
        add_gpu(tmp_path, path)
    assert words(sysfs.read_machine(tmp_path))[0] == ["X", "?", "?"]
    add_numa_nodes(tmp_path, "0-3")  # there is only one, so all are near it
    assert words(sysfs.read_machine(tmp_path))[0] == ["X", "NODE", "NODE"]


@pytest.mark.parametrize(
    ("driver", "reason"),
    [("nouveau", "is served by nouveau, not by NVIDIA's driver"), ("", "has no driver, not by NVIDIA's driver")],
)
def test_gpus_of_another_driver(tmp_path: Path, driver: str, reason: str) -> None:
    add_gpu(tmp_path, GPUS[3], driver=driver)
    machine = sysfs.read_machine(tmp_path)
    assert machine.gpus == ()
    assert machine.no_gpu_reason == f"the NVIDIA GPU at 00000000:50:00.0 {reason}"


def test_gpus_that_a_container_does_not_get(tmp_path: Path) -> None:
    for minor, path in enumerate(GPUS[:3]):
        add_gpu(tmp_path, path, minor=minor)
    (tmp_path / "dev/nvidia1").touch()
    assert [gpu.bus_id for gpu in sysfs.read_machine(tmp_path).gpus] == ["00000000:3e:00.0"]
    (tmp_path / "dev/nvidiactl").unlink()
    assert "is not given to this container" in sysfs.read_machine(tmp_path).no_gpu_reason


def test_no_linux(tmp_path: Path) -> None:
    assert sysfs.read_machine(tmp_path / "nowhere") == Machine(source=sysfs.SOURCE)


def test_paths_that_are_not_known() -> None:
    assert path_class((), ("pci0000:00", "a"), (0, 0)).word == "?"
    assert path_class(("pci0000:00", "a"), ("pci0000:01", "b"), (0, None)).word == "?"


def test_a_domain_that_is_not_zero(tmp_path: Path) -> None:
    add_device(tmp_path, "LNXSYSTM:00/VMBUS:00/47505500/pci10000:00/10000:00:00.0", numa_node="1")
    tree = PciTree(tmp_path)
    assert tree.bus_ids() == ["00010000:00:00.0"]
    assert tree.path("00010000:00:00.0") == ("pci10000:00", "00010000:00:00.0")
    assert tree.number("00010000:00:00.0", "numa_node") == 1


def joined(root: Path, word: str = "PHB", p2p: str = "OK") -> Machine:
    gpus = sysfs.read_machine(root).gpus[:2]
    return Machine(gpus, (Link(0, 1, LinkClass.parse(word), p2p, p2p),))


def iommu_box(root: Path, group: str, command_line: str = "quiet", units: tuple[str, ...] = ("dmar0",)) -> Path:
    for path in GPUS[:2]:
        add_gpu(root, path, 0, group=group)
    for unit in units:
        (root / "sys/class/iommu" / unit).mkdir(parents=True)
    (root / "proc/cmdline").write_text(command_line + "\n")
    return root


@pytest.mark.parametrize(
    ("group", "command_line", "units", "evidence"),
    [
        ("DMA", "", ("dmar0",), "iommu_group/type: DMA)"),
        ("DMA-FQ", "", ("ivhd0",), "iommu_group/type: DMA-FQ)"),
        ("identity", "intel_iommu=on", ("dmar0",), ""),
        ("", "intel_iommu=on", ("dmar0",), "intel_iommu=on)"),
        ("", "amd_iommu=on iommu=pt", ("ivhd0",), ""),
        ("", "quiet", ("dmar0",), ""),
        ("", "intel_iommu=on", (), ""),
    ],
)
def test_an_iommu_that_translates(
    tmp_path: Path, group: str, command_line: str, units: tuple[str, ...], evidence: str
) -> None:
    root = iommu_box(tmp_path, group, command_line, units)
    warnings = iommu.iommu_warnings(joined(root), root)
    assert [warning.code for warning in warnings] == (["T06"] if evidence else [])
    assert all(evidence in warning.message for warning in warnings)
    assert iommu.iommu_warnings(joined(root, "NV4"), root) == []
    assert iommu.iommu_warnings(joined(root, "PHB", "GNS"), root) == []


def test_an_iommu_in_a_virtual_machine(tmp_path: Path) -> None:
    root = iommu_box(tmp_path, "DMA")
    (root / "proc/cpuinfo").write_text("flags\t: fpu vme hypervisor lahf_lm\n")
    assert "virtual machine" in iommu.iommu_warnings(joined(root), root)[0].message


@pytest.mark.parametrize(("control", "redirects"), [(0b0001_1101, True), (0b0001_0001, False), (None, False)])
def test_bridges_that_redirect(tmp_path: Path, control: int | None, redirects: bool) -> None:
    root = iommu_box(tmp_path, "identity")
    add_device(root, f"{SWITCH}/0000:3c:00.0")
    config = root / "sys/devices" / SWITCH / "0000:3c:00.0" / "config"
    config.write_bytes(configuration_space(control))
    warnings = iommu.iommu_warnings(joined(root), root)
    assert [warning.code for warning in warnings] == (["T06"] if redirects else [])
    assert all("00000000:3c:00.0" in warning.message for warning in warnings)
    config.write_bytes(configuration_space(control)[:64])  # what others than root may read
    assert iommu.acs_redirects(PciTree(root), "00000000:3c:00.0") is None


def test_a_configuration_space_that_makes_no_sense(tmp_path: Path) -> None:
    add_device(tmp_path, "pci0000:00/0000:00:01.0")
    config = tmp_path / "sys/devices/pci0000:00/0000:00:01.0/config"
    for space in (b"\xff" * 4096, b"\0" * 4096, (b"\x01\0\x01\x10" * 1024), b"\0" * 255):
        config.write_bytes(space)
        assert iommu.acs_redirects(PciTree(tmp_path), "00000000:00:01.0") in (None, False)
