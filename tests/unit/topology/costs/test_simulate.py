"""The simulation beside the closed formulas, and beside sums done by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.costs.cost import predict_tree
from paratrain.topology.costs.exchanges import doubling_rounds, predict_doubling, predict_ring
from paratrain.topology.costs.schedules import Task, round_tasks
from paratrain.topology.costs.simulate import finish_time, simulate_ring, simulate_trees
from paratrain.topology.known_machines import known_machine
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.planner import binomial
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.tree import Tree, chain, star
from tests.unit.topology.machines import machine_of, uniform

LENET = 1_724_320
UNSHARED = ["dgx1-p100", "dgx1-v100", "dgx2", "hgx-a100", "hgx-h100", "gb200-tray"]


def trees_of(name: str, byte_count: int) -> list[Tree]:
    machine = known_machine(name)
    size = len(machine.gpus)
    planned = plan_machine(machine, byte_count).tree
    assert planned is not None
    return [planned, chain(size), star(size), binomial(size)]


@pytest.mark.parametrize("byte_count", [1000, LENET, 64_000_000])
@pytest.mark.parametrize("name", UNSHARED)
def test_trees_agree_with_the_closed_formula(name: str, byte_count: int) -> None:
    fabric = MachineFabric(known_machine(name))
    for tree in trees_of(name, byte_count):
        for chunk_count in (1, 2, 7):
            predicted = predict_tree(fabric, tree, byte_count, chunk_count=chunk_count)
            simulated = simulate_trees(fabric, [tree], byte_count, chunk_count)
            assert simulated.reduce_s == pytest.approx(predicted.reduce_s, rel=0.05)
            assert simulated.broadcast_s == pytest.approx(predicted.broadcast_s, rel=0.05)


@pytest.mark.parametrize("name", UNSHARED)
def test_rings_agree_with_the_closed_formula(name: str) -> None:
    fabric = MachineFabric(known_machine(name))
    ring = range(fabric.size)
    for byte_count in (1000, LENET, 64_000_000):
        simulated = simulate_ring(fabric, ring, byte_count).total_s
        assert simulated == pytest.approx(predict_ring(fabric, ring, byte_count).total_s, rel=0.05)


def test_a_long_ring_is_simulated_by_its_last_round() -> None:
    fabric = MachineFabric(uniform(80, "NV2"))
    expected = predict_ring(fabric, range(80), LENET).total_s
    assert simulate_ring(fabric, range(80), LENET).total_s == pytest.approx(expected, rel=0.01)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(1, 9), st.data())
def test_any_tree_over_unshared_links_of_any_speed(size: int, chunk_count: int, data: st.DataObject) -> None:
    words = [[data.draw(st.sampled_from(["NV1", "NV2", "NV4"])) for _ in range(row)] for row in range(size)]
    rows = [" ".join("X" if a == b else words[max(a, b)][min(a, b)] for b in range(size)) for a in range(size)]
    fabric = MachineFabric(machine_of(rows))
    tree = Tree.from_parents([None, *(data.draw(st.integers(0, member - 1)) for member in range(1, size))])
    predicted = predict_tree(fabric, tree, 10**7, chunk_count=chunk_count)
    simulated = simulate_trees(fabric, [tree], 10**7, chunk_count)
    assert simulated.reduce_s == pytest.approx(predicted.reduce_s, rel=0.05)
    assert simulated.broadcast_s == pytest.approx(predicted.broadcast_s, rel=0.05)


def test_recursive_doubling() -> None:
    fabric = MachineFabric(uniform(8, "NV2"))
    rounds = doubling_rounds(range(8), LENET, halving=False)
    assert finish_time(fabric, round_tasks(rounds)) == pytest.approx(predict_doubling(fabric, range(8), LENET).total_s)


BETWEEN = MachineFabric(machine_of(["X PHB SYS SYS", "PHB X SYS SYS", "SYS SYS X PHB", "SYS SYS PHB X"]))


def test_two_transfers_share_a_link_fairly() -> None:
    rate, latency = BETWEEN.figure(0, 2).bytes_per_s, BETWEEN.figure(0, 2).latency_s
    alone = latency + 1e6 / rate
    assert finish_time(BETWEEN, [Task(2, 0, 1e6)]) == pytest.approx(alone)
    assert finish_time(BETWEEN, [Task(2, 0, 1e6), Task(1, 3, 1e6)]) == pytest.approx(alone)  # one each way
    assert finish_time(BETWEEN, [Task(2, 0, 1e6), Task(3, 1, 1e6)]) == pytest.approx(latency + 2e6 / rate)
    # 0.5 MB and 1.5 MB: each half the rate until 1 MB is over, the second alone for its last 1 MB
    assert finish_time(BETWEEN, [Task(2, 0, 5e5), Task(3, 1, 15e5)]) == pytest.approx(latency + 2e6 / rate)
    # the second begins when the first is done
    assert finish_time(BETWEEN, [Task(2, 0, 1e6), Task(3, 1, 1e6, (0,))]) == pytest.approx(2 * alone)


def test_who_is_slow_elsewhere_leaves_the_rest_to_others() -> None:
    # 0 and 1 are two islands' GPUs of one socket; the link 0-2 is slower than half of the socket's.
    rows = ["X PHB SYS SYS", "PHB X SYS SYS", "SYS SYS X PHB", "SYS SYS PHB X"]
    slow = machine_of(rows).with_measured({(0, 2): LinkFigure(2e9, 0.0, origin="measured")})
    fabric = MachineFabric(slow)
    rate = fabric.figure(1, 3).bytes_per_s
    socket = fabric.capacity("socket of GPU0 in")
    seconds = finish_time(fabric, [Task(2, 0, 2e9), Task(3, 1, socket - 2e9)])
    assert rate == socket
    assert seconds == pytest.approx(1.0, rel=1e-4)


def six_on_two_sockets(**seconds_of: float) -> MachineFabric:
    """GPUs 0, 1 and 4 at one socket, 2, 3 and 5 at the other; pairs named "p25" take these seconds for LENET bytes."""
    socket = [0, 0, 1, 1, 0, 1]
    rows = [" ".join("X" if a == b else "PHB" if socket[a] == socket[b] else "SYS" for b in range(6)) for a in range(6)]
    measured = {
        (int(name[1]), int(name[2])): LinkFigure(LENET / seconds, 0.0, origin="measured")
        for name, seconds in seconds_of.items()
    }
    return MachineFabric(machine_of(rows).with_measured(measured))


def both(fabric: MachineFabric, tree: Tree) -> tuple[float, float]:
    return predict_tree(fabric, tree, LENET, chunk_count=1).reduce_s, simulate_trees(fabric, [tree], LENET).reduce_s


def test_where_links_are_shared_they_agree_on_transfers_that_begin_together() -> None:
    tree = Tree.from_edges(4, 0, [(0, 2), (0, 1), (1, 3)])  # 2 to 0 and 3 to 1 in one step, then 1 to 0
    phb, sys = BETWEEN.figure(0, 1), BETWEEN.figure(0, 2)
    formula, simulated = both(BETWEEN, tree)
    assert formula == pytest.approx(sys.latency_s + 2 * LENET / sys.bytes_per_s + phb.time_s(LENET))
    assert simulated == pytest.approx(formula)


def test_the_formula_is_low_where_transfers_of_different_steps_meet() -> None:
    """3 waits for 5, which takes no time: 3 to 1 is in step 2 and meets 2 to 0, of step 1, on the sockets' link."""
    fabric = six_on_two_sockets(p35=1e-9, p14=1e-9, p01=1e-9)
    tree = Tree.from_edges(6, 0, [(0, 2), (0, 1), (1, 4), (1, 3), (3, 5)])
    formula, simulated = both(fabric, tree)
    sys = fabric.figure(0, 2)
    assert formula == pytest.approx(sys.time_s(LENET), rel=1e-3)
    assert simulated == pytest.approx(sys.latency_s + 2 * LENET / sys.bytes_per_s, rel=1e-3)


def test_the_formula_is_high_where_transfers_of_one_step_do_not_meet() -> None:
    """2 to 0 and 3 to 1 are both in step 2, but 3 waits until 5 has sent for long."""
    fabric = six_on_two_sockets(p04=1e-9, p35=5e-3, p01=1e-9)
    tree = Tree.from_edges(6, 0, [(0, 4), (0, 2), (0, 1), (1, 3), (3, 5)])
    formula, simulated = both(fabric, tree)
    sys = fabric.figure(0, 2)
    assert formula == pytest.approx(5e-3 + sys.latency_s + 2 * LENET / sys.bytes_per_s, rel=1e-3)
    assert simulated == pytest.approx(5e-3 + sys.time_s(LENET), rel=1e-3)


def test_tasks_that_wait_for_each_other_are_a_broken_schedule() -> None:
    with pytest.raises(AssertionError, match="in a circle"):
        finish_time(BETWEEN, [Task(0, 1, 1.0, (1,)), Task(1, 0, 1.0, (0,))])


def test_nothing_to_do() -> None:
    assert finish_time(BETWEEN, []) == 0.0
