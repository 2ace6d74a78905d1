from __future__ import annotations

from itertools import pairwise

import pytest

from paratrain.comm.tree import ELEMENTS_PER_CHUNK
from paratrain.errors import TopologyError
from paratrain.topology.costs.cost import CHUNK_BYTES, figure_between, predict_tree, steps
from paratrain.topology.known_machines import known_machine, machine_names
from paratrain.topology.link_figures import link_figure
from paratrain.topology.machine import Gpu, Link, LinkClass, Machine
from paratrain.topology.planner import binomial
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.tree import Tree, chain, star


def machine_of(rows: list[str], **gpu: object) -> Machine:
    cells = [row.split() for row in rows]
    size = len(cells)
    gpus = tuple(Gpu(index, **gpu) for index in range(size))  # type: ignore[arg-type]
    links = [Link(a, b, LinkClass.parse(cells[a][b])) for a in range(size) for b in range(a + 1, size)]
    return Machine(gpus, tuple(links))


def uniform(size: int, word: str) -> Machine:
    return machine_of([" ".join("X" if a == b else word for b in range(size)) for a in range(size)])


def test_figures_of_a_link() -> None:
    a100 = Gpu(0, compute_capability="8.0", pcie_generation=4)
    nv12 = link_figure(Link(0, 1, LinkClass.parse("NV12")), a100, a100)
    assert (nv12.bytes_per_s, nv12.latency_s, nv12.origin) == (240e9, 3e-6, "default")
    assert link_figure(Link(0, 1, LinkClass.parse("PIX")), a100, a100).bytes_per_s == 22e9
    assert link_figure(Link(0, 1, LinkClass.parse("PIX")), a100, Gpu(1, pcie_generation=3)).bytes_per_s == 11e9
    assert link_figure(Link(0, 1, LinkClass.parse("NODE")), a100, a100).bytes_per_s == pytest.approx(17.6e9)
    assert link_figure(Link(0, 1, LinkClass.parse("SYS")), a100, a100).bytes_per_s == 10e9
    narrow = Gpu(1, pcie_generation=4, pcie_width=8)
    assert link_figure(Link(0, 1, LinkClass.parse("PIX")), a100, narrow).bytes_per_s == 11e9


def test_a_pair_that_may_not_copy_directly_goes_through_the_host() -> None:
    gpu = Gpu(0, pcie_generation=4)
    figure = link_figure(Link(0, 1, LinkClass.parse("PHB"), p2p_read="GNS"), gpu, gpu)
    assert figure.staged
    assert figure.time_s(11 * 10**9) == pytest.approx(1 + 20e-6)
    assert not link_figure(Link(0, 1, LinkClass.parse("PHB"), p2p_read="OK", p2p_write="OK"), gpu, gpu).staged


def test_an_unknown_link_goes_through_the_host() -> None:
    figure = figure_between(Machine((Gpu(0), Gpu(1))), 0, 1)
    assert figure.staged
    assert (figure.bytes_per_s, figure.latency_s) == (5.5e9, pytest.approx(20e-6))


def test_closed_forms_of_chain_star_and_binomial_tree() -> None:
    machine = uniform(8, "NV2")
    once = figure_between(machine, 0, 1).time_s(1_000_000)
    assert predict_tree(machine, chain(8), 1_000_000).reduce_s == pytest.approx(7 * once)
    assert predict_tree(machine, star(8), 1_000_000).reduce_s == pytest.approx(7 * once)
    assert predict_tree(machine, binomial(8), 1_000_000).reduce_s == pytest.approx(3 * once)
    assert predict_tree(machine, binomial(8), 1_000_000).broadcast_s == pytest.approx(3 * once)


def test_steps_of_a_tree() -> None:
    assert steps(binomial(4)) == [[(2, 3), (0, 1)], [(0, 2)]]
    assert steps(Tree.from_edges(4, 0, [(0, 2), (2, 3), (0, 1)])) == [[(2, 3)], [(0, 2)], [(0, 1)]]


def test_the_bridged_pairs_of_eight_a100() -> None:
    machine = known_machine("a100-pcie-8-bridged")
    plan = plan_machine(machine, 100_000_000)
    assert plan.tree is not None
    used = sorted(machine.link_class(*edge).word for edge in plan.tree.edges())
    assert used == ["NODE", "NODE", "NV12", "NV12", "NV12", "NV12", "SYS"]
    # whole buffers of 100 MB go one after another at 240, 17.6 and 10 GB/s
    whole = predict_tree(machine, binomial(8), 100_000_000, chunk_count=1)
    assert whole.reduce_s == pytest.approx(0.1 / 240 + 0.1 / 17.6 + 0.1 / 10 + 14e-6)
    # in chunks the link between the sockets is what remains
    assert 0.1 / 10 < plan.predictions[0].reduce_s < 1.1 * 0.1 / 10


def test_links_that_share_a_segment_share_its_rate() -> None:
    machine = machine_of(["X SYS PHB SYS", "SYS X SYS PHB", "PHB SYS X SYS", "SYS PHB SYS X"])  # sockets 0, 2 and 1, 3
    sys, phb = figure_between(machine, 0, 1), figure_between(machine, 0, 2)
    sent = 10**6 / sys.bytes_per_s
    # 0-1 and 2-3 cross the sockets together, 1 and 3 to 0 and 2, so that each gets half; then 0-2
    two_at_once = predict_tree(machine, binomial(4), 10**6).reduce_s
    assert two_at_once == pytest.approx(sys.latency_s + 2 * sent + phb.time_s(10**6))
    # the links are full duplex: 1 to 0 and 2 to 3 do not meet
    both_ways = Tree.from_edges(4, 0, [(0, 1), (0, 3), (3, 2)])
    assert predict_tree(machine, both_ways, 10**6).reduce_s == pytest.approx(2 * sys.time_s(10**6))
    island = machine_of(["X PIX PHB PHB", "PIX X PHB PHB", "PHB PHB X PIX", "PHB PHB PIX X"])
    both_out = Tree.from_edges(4, 0, [(0, 2), (1, 3), (0, 1)])
    phb, pix = figure_between(island, 0, 2).time_s(10**6), figure_between(island, 0, 1).time_s(10**6)
    shared = figure_between(island, 0, 2).latency_s + 2 * 10**6 / figure_between(island, 0, 2).bytes_per_s
    assert phb < shared < 2 * phb
    assert predict_tree(island, both_out, 10**6).reduce_s == pytest.approx(shared + pix)


@pytest.mark.parametrize("name", machine_names())
def test_a_plan_is_never_slower_than_the_tree_by_indices(name: str) -> None:
    machine = known_machine(name)
    for byte_count in (1000, 10**6, 10**9):
        for root in machine.indices:
            plan = plan_machine(machine, byte_count, root)
            assert plan.tree is not None
            assert plan.index(plan.tree.root) == root
            own, in_order = plan.predictions[:2]
            assert own.reduce_s <= in_order.reduce_s


def test_more_bytes_take_longer() -> None:
    machine = known_machine("dgx1-v100")
    times = [plan_machine(machine, 10**power).predictions[0].reduce_s for power in range(3, 10)]
    assert all(less < more for less, more in pairwise(times))


def test_a_root_that_is_not_there() -> None:
    with pytest.raises(TopologyError, match=r"root 9: .*it has 4 GPUs \(0, 1, 2, 3\)"):
        plan_machine(known_machine("caffe-4x-pcie"), 1, 9)


def test_chunks_are_not_cut_finer_than_the_trainer_cuts_them() -> None:
    assert CHUNK_BYTES == ELEMENTS_PER_CHUNK * 4  # float32
