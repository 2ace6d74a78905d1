from __future__ import annotations

import pytest

from paratrain.errors import TopologyError
from paratrain.topology.known_machines import known_machine
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import CpuRank, Gpu, Link, LinkClass, LinkKind, Machine
from paratrain.topology.planning.plan import SHAPES, Plan, plan_machine
from paratrain.topology.text.matrix import read_machine
from tests.paths import REPOSITORY
from tests.unit.topology.machines import machine_of, uniform

LENET = 1_724_320
SAMPLES = REPOSITORY / "tests" / "data" / "topology"


def pairs(plan: Plan) -> set[tuple[int, int]]:
    return {(min(edge.parent, edge.child), max(edge.parent, edge.child)) for edge in plan.edges}


def words(plan: Plan) -> list[str]:
    return sorted(edge.link_class.word for edge in plan.edges)


@pytest.mark.parametrize("byte_count", [1000, LENET])
def test_the_machine_of_the_caffe_write_ups(byte_count: int) -> None:
    plan = plan_machine(machine_of(["X PHB SOC SOC", "PHB X SOC SOC", "SOC SOC X PHB", "SOC SOC PHB X"]), byte_count)
    assert [(edge.parent, edge.child) for edge in plan.edges] == [(0, 1), (0, 2), (2, 3)]
    assert plan.tree is not None and plan.tree.root == 0
    assert (plan.tree_shape, plan.rank_order) == ("tree", (0, 1, 2, 3))


@pytest.mark.parametrize("size", [3, 5, 7, 9])
def test_an_odd_number_of_gpus_without_p2p(size: int) -> None:
    # Caffe's pairing read past the end of its list here (BVLC/caffe issues 3531 and 3586).
    machine = uniform(size, "PHB")
    refused = tuple(Link(link.a, link.b, link.link_class, "GNS", "GNS") for link in machine.links)
    plan = plan_machine(Machine(machine.gpus, refused), LENET)
    assert plan.tree is not None and plan.tree.size == size
    assert {edge.transport for edge in plan.edges} == {"host"}
    assert all("the driver allows no direct copies (GNS)" in edge.reason for edge in plan.edges)


def test_only_gpus_1_and_2_with_p2p() -> None:
    links = (
        Link(0, 1, LinkClass.parse("PHB"), "GNS", "GNS"),
        Link(0, 2, LinkClass.parse("PHB"), "GNS", "GNS"),
        Link(1, 2, LinkClass.parse("PHB"), "OK", "OK"),
    )
    plan = plan_machine(Machine((Gpu(0), Gpu(1), Gpu(2)), links), LENET)
    assert (1, 2) in pairs(plan)
    transports = {(edge.parent, edge.child): edge.transport for edge in plan.edges}
    assert sorted(transports.values()) == ["host", "ipc"]


def sample(name: str) -> Machine:
    return read_machine((SAMPLES / name).read_bytes(), name)


def test_the_near_pair_in_the_middle() -> None:
    assert (1, 2) in pairs(plan_machine(sample("l20_4gpu_node_pix_middle_pair.txt"), LENET))


@pytest.mark.parametrize("byte_count", [1000, LENET, 10**8])
def test_the_four_bridged_pairs(byte_count: int) -> None:
    plan = plan_machine(sample("a100_pcie_8gpu_nv12_bridged_pairs.txt"), byte_count)
    assert {(0, 1), (2, 3), (4, 5), (6, 7)} <= pairs(plan)
    assert words(plan).count("SYS") == 1


def test_a_cube_mesh_numbered_unusually() -> None:
    plan = plan_machine(sample("v100_sxm2_8gpu_permuted_cube_mesh.txt"), LENET)
    assert set(words(plan)) <= {"NV1", "NV2"}
    assert words(plan).count("NV2") >= 6


def test_small_buffers_take_a_tree_and_large_ones_a_chain() -> None:
    machine = known_machine("hgx-a100")
    assert plan_machine(machine, 1000).tree_shape == "tree"
    large = plan_machine(machine, 10**9)
    assert (large.tree_shape, large.predictions[0].chunk_count > 10) == ("chain", True)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_are_asked_for(shape: str) -> None:
    plan = plan_machine(known_machine("dgx1-v100"), 10**7, root=3, shape=shape)
    assert plan.tree is not None and plan.index(plan.tree.root) == 3
    if shape in ("chain", "star"):
        assert plan.tree_shape == shape
        assert plan.tree.depth == (7 if shape == "chain" else 1)
    if shape == "index":
        assert [(edge.parent, edge.child) for edge in plan.edges][:3] == [(3, 4), (3, 5), (3, 7)]
    if shape == "sharded":
        assert (plan.shape, len(plan.trees)) == ("sharded", 8)
        assert sorted(tree.root for tree in plan.trees) == list(range(8))
    else:
        assert shape == "auto" or plan.trees == (plan.tree,)


def test_a_shape_or_root_that_is_not_there() -> None:
    with pytest.raises(TopologyError, match="shape 'ball': expected one of auto, tree"):
        plan_machine(known_machine("dgx2"), 1, shape="ball")
    with pytest.raises(TopologyError, match=r"root 9: .*it has 4 GPUs \(0, 1, 2, 3\)"):
        plan_machine(known_machine("caffe-4x-pcie"), 1, 9)


def test_a_root_that_is_faster_is_rank_0() -> None:
    # NVLinks make a path 0-1-2-3-4-5; under one of the middle GPUs three transfers in a row are enough.
    rows = [" ".join("X" if a == b else "NV2" if abs(a - b) == 1 else "SYS" for b in range(6)) for a in range(6)]
    plan = plan_machine(machine_of(rows), 1000)
    assert words(plan) == ["NV2"] * 5
    assert plan.rank_order[0] in (2, 3)
    assert plan.rank_tree is not None and plan.rank_tree.root == 0
    assert plan.predictions[0].reduce_s == pytest.approx(3 * (3e-6 + 1000 / 40e9))
    under_0 = plan_machine(machine_of(rows), 1000, root=0)
    assert under_0.predictions[0].reduce_s > plan.predictions[0].reduce_s


def test_a_vetoed_pair_is_planned_around() -> None:
    machine = machine_of(["X PIX PHB PHB", "PIX X PHB PHB", "PHB PHB X PIX", "PHB PHB PIX X"])
    assert (0, 1) in pairs(plan_machine(machine, LENET))
    vetoed = machine.with_vetoes({(0, 1): "the check found wrong data"})
    plan = plan_machine(vetoed, LENET)
    assert (0, 1) not in pairs(plan)
    only = plan_machine(vetoed.select([0, 1]), LENET)
    assert only.edges[0].transport == "host"
    assert only.edges[0].reason == "through the host's memory: the check found wrong data"
    assert only.edges[0].bytes_per_s < plan_machine(machine.select([0, 1]), LENET).edges[0].bytes_per_s


def test_measured_figures_replace_defaults() -> None:
    machine = uniform(3, "PHB").with_measured({(1, 2): LinkFigure(40e9, 2e-6, origin="measured")})
    plan = plan_machine(machine, LENET)
    measured = [edge for edge in plan.edges if edge.origin == "measured"]
    assert [(edge.parent, edge.child) for edge in measured] in ([(1, 2)], [(2, 1)])
    assert measured[0].bytes_per_s == 40e9
    assert (plan.predictions[0].origin, plan.predictions[0].uncertainty) == ("mixed", 0.5)
    pair = plan_machine(machine.select([1, 2]), LENET).predictions[0]
    assert (pair.origin, pair.uncertainty) == ("measured", 0.1)
    assert pair.reduce_s == pytest.approx(2e-6 + LENET / 40e9)


def test_a_host_path_that_was_measured_to_be_faster() -> None:
    machine = uniform(2, "PHB").with_measured({(0, 1): LinkFigure(20e9, 20e-6, staged=True, origin="measured")})
    edge = plan_machine(machine, LENET).edges[0]
    assert (edge.transport, edge.reason) == (
        "host",
        "through the host's memory, which was measured to be faster than a direct copy",
    )


@pytest.mark.parametrize(
    ("machine", "transport", "reason"),
    [
        (uniform(2, "NV2"), "ipc", "direct copy: 2 NVLinks of their own join the two; nobody asked"),
        (uniform(2, "NV12", nvswitch=True), "ipc", "direct copy: 12 NVLinks through an NVSwitch"),
        (uniform(2, "SYS"), "ipc", "direct copy: the way leads from one socket to another; nobody asked"),
        (uniform(2, "PIX", mig=True), "host", "through the host's memory: MIG instances cannot copy directly"),
        (uniform(2, "?"), "host", "through the host's memory: nobody said how the two are linked"),
        (Machine(cpu_ranks=(CpuRank(0), CpuRank(1))), "shared", "both are CPU ranks of one node"),
    ],
)
def test_transports(machine: Machine, transport: str, reason: str) -> None:
    edge = plan_machine(machine, LENET).edges[0]
    assert edge.transport == transport
    assert edge.reason.startswith(reason)


def test_p2p_that_the_driver_allows() -> None:
    link = Link(0, 1, LinkClass.parse("PIX"), "OK", "OK")
    edge = plan_machine(Machine((Gpu(0), Gpu(1)), (link,)), LENET).edges[0]
    assert edge.reason == "direct copy: at most one PCIe bridge lies between the two"


def test_cpu_ranks_of_two_numa_nodes() -> None:
    machine = Machine(cpu_ranks=tuple(CpuRank(rank, numa_node=rank % 2) for rank in range(4)))
    plan = plan_machine(machine, LENET)
    assert pairs(plan) >= {(0, 2), (1, 3)}
    assert {edge.link_class.kind for edge in plan.edges} == {LinkKind.SHARED}
    assert plan.rank_order == (0, 1, 2, 3)


def test_nobody() -> None:
    plan = plan_machine(Machine(no_gpu_reason="none"), 1)
    assert (plan.tree, plan.edges, plan.predictions, plan.rank_order, plan.rank_tree) == (None, (), (), (), None)
