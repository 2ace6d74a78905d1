from __future__ import annotations

import pytest

from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.known_machines import known_machine
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import CpuRank, Machine
from tests.unit.topology.machines import machine_of, uniform


def test_islands_and_sockets() -> None:
    machine = machine_of(["X PIX SYS PHB", "PIX X SYS PHB", "SYS SYS X SYS", "PHB PHB SYS X"])
    fabric = MachineFabric(machine)
    assert fabric.islands == [0, 0, 2, 3]
    assert fabric.sockets == [0, 0, 2, 0]
    assert [fabric.crosses_sockets(0, other) for other in (1, 2, 3)] == [False, True, False]


def test_numa_nodes_make_sockets_where_nvlinks_hide_the_pcie_way() -> None:
    fabric = MachineFabric(known_machine("dgx1-v100"))
    assert fabric.sockets == [0] * 4 + [4] * 4
    assert not fabric.crosses_sockets(0, 4)  # NV2
    assert fabric.crosses_sockets(0, 5)


def test_direct_nvlinks_are_a_wire_of_their_own_and_a_switch_has_ports() -> None:
    direct, switch = MachineFabric(uniform(4, "NV3")), MachineFabric(uniform(4, "NV12", nvswitch=True))
    assert direct.path(0, 1) == ("wire GPU0 to GPU1",)
    assert set(direct.path(0, 1)).isdisjoint(direct.path(1, 0))
    assert switch.path(0, 1) == ("port of GPU0 out", "port of GPU1 in")
    assert switch.common(0, 1) == ()
    assert switch.capacity("port of GPU0 out") == 240e9


def test_what_a_pcie_transfer_loads() -> None:
    machine = machine_of(["X PIX SYS SYS", "PIX X SYS SYS", "SYS SYS X PIX", "SYS SYS PIX X"], pcie_generation=3)
    fabric = MachineFabric(machine)
    assert fabric.path(0, 1) == ("slot of GPU0 out", "slot of GPU1 in")
    assert fabric.common(1, 3) == (
        "uplink of GPU0's island out",
        "uplink of GPU2's island in",
        "socket of GPU0 out",
        "socket of GPU2 in",
    )
    assert fabric.capacity("uplink of GPU0's island out") == pytest.approx(8.8e9)
    assert fabric.capacity("slot of GPU0 out") == 11e9


def test_staged_copies_leave_the_island_and_come_back() -> None:
    machine = uniform(3, "PIX").with_vetoes({(0, 1): "wrong data"})
    fabric = MachineFabric(machine)
    assert fabric.common(0, 2) == ()
    assert fabric.common(0, 1) == ("uplink of GPU0's island out", "uplink of GPU0's island in")


def test_measured_figures_raise_what_segments_carry() -> None:
    machine = uniform(2, "PIX", pcie_generation=3).with_measured({(0, 1): LinkFigure(13e9, 1e-6, origin="measured")})
    assert MachineFabric(machine).capacity("slot of GPU0 out") == 13e9


def test_cpu_ranks_share_memory() -> None:
    ranks = Machine(cpu_ranks=(CpuRank(0, 0), CpuRank(1, 0), CpuRank(2, 1), CpuRank(3)))
    fabric = MachineFabric(ranks)
    assert fabric.common(0, 1) == ("memory of NUMA node 0",)
    assert fabric.common(0, 2) == ("memory of NUMA node 0", "memory of NUMA node 1")
    assert fabric.capacity("memory of NUMA node 0") == 20e9
    assert fabric.figure(0, 1).bytes_per_s > fabric.figure(0, 2).bytes_per_s
