"""What holds of every plan, whatever the machine."""

from __future__ import annotations

import json
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.costs.cost import predict_tree
from paratrain.topology.machine import Gpu, Machine
from paratrain.topology.planner import binomial, depth_limit, plan_tree
from paratrain.topology.planning.plan import Plan, plan_machine
from paratrain.topology.text.matrix import read_machine
from paratrain.topology.tree import Tree, star
from tests.paths import REPOSITORY
from tests.unit.topology.machines import random_machines, renumbered

BYTES = st.sampled_from([1000, 1_724_320, 64_000_000])


def alike(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=1e-8)


def check_tree(plan: Plan, root: int | None) -> None:
    tree = plan.tree
    assert tree is not None
    tree.validate()  # spans, has no cycle
    assert tree.size == len(plan.machine.gpus)
    assert root is None or plan.index(tree.root) == root
    assert plan.rank_order[0] == plan.index(tree.root)
    assert sorted(plan.rank_order) == sorted(plan.machine.indices)
    assert plan.rank_tree is not None and plan.rank_tree.root == 0
    assert len(plan.edges) == tree.size - 1
    for one in plan.trees:
        one.validate()
        assert one.size == tree.size
    assert sum(prediction.best for prediction in plan.predictions) == 1


def check_against_the_tree_in_order(plan: Plan, root: int | None) -> None:
    assert plan.tree is not None
    in_order = binomial(plan.tree.size, 0 if root is None else plan.machine.indices.index(root))
    own, other = (predict_tree(plan.machine, tree, plan.byte_count) for tree in (plan.tree, in_order))
    assert own.reduce_s <= other.reduce_s * (1 + 1e-8)
    assert alike(plan.predictions[0].reduce_s, own.reduce_s)
    assert alike(plan.predictions[1].reduce_s, other.reduce_s)


def check_depth(plan: Plan) -> None:
    """At most ceil(log2 n) + 1, unless shallow trees are predicted to be slower."""
    tree = plan.tree
    assert tree is not None
    if tree.depth > depth_limit(tree.size):
        fabric = MachineFabric(plan.machine)
        cost = [
            [0.0 if a == b else fabric.seconds(a, b, plan.byte_count) for b in range(tree.size)]
            for a in range(tree.size)
        ]
        for shallow in (plan_tree(cost, tree.root), binomial(tree.size, tree.root), star_under(tree.size, tree.root)):
            assert plan.predictions[0].reduce_s < predict_tree(fabric, shallow, plan.byte_count).reduce_s


def star_under(size: int, root: int) -> Tree:
    return star(size).renumbered([root, *(member for member in range(size) if member != root)])


def check_crossings(plan: Plan) -> None:
    """As few edges between sockets as can be, unless a tree with so few is predicted to be slower."""
    tree = plan.tree
    assert tree is not None
    fabric = MachineFabric(plan.machine)
    found = sum(fabric.crosses_sockets(*edge) for edge in tree.edges())
    few = fewest_crossings(fabric, tree.root)
    least = sum(fabric.crosses_sockets(*edge) for edge in few.edges())
    assert found >= least
    if found > least:
        assert plan.predictions[0].reduce_s <= predict_tree(fabric, few, plan.byte_count).reduce_s * (1 + 1e-8)


def fewest_crossings(fabric: MachineFabric, root: int) -> Tree:
    """The tree that a breadth-first walk makes which leaves a group of near members only when it has all of it."""
    edges: list[tuple[int, int]] = []
    reached = [root]
    while len(reached) < fabric.size:
        waiting = [member for member in range(fabric.size) if member not in reached]
        near = [(a, b) for a, b in product(reached, waiting) if not fabric.crosses_sockets(a, b)]
        edge = near[0] if near else (reached[0], waiting[0])
        edges.append(edge)
        reached.append(edge[1])
    return Tree.from_edges(fabric.size, root, edges)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(random_machines(12), BYTES, st.data())
def test_every_plan(machine: Machine, byte_count: int, data: st.DataObject) -> None:
    root = data.draw(st.one_of(st.none(), st.sampled_from(machine.indices)))
    plan = plan_machine(machine, byte_count, root)
    check_tree(plan, root)
    check_against_the_tree_in_order(plan, root)
    check_depth(plan)
    check_crossings(plan)
    assert plan_machine(machine, byte_count, root) == plan


def signature(plan: Plan) -> list[tuple[int, str, str]]:
    return sorted((edge.level, edge.link_class.word, edge.transport) for edge in plan.edges)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(random_machines(12), BYTES, st.data())
def test_numbers_do_not_matter(machine: Machine, byte_count: int, data: st.DataObject) -> None:
    number = data.draw(st.permutations(machine.indices))
    root = data.draw(st.one_of(st.none(), st.sampled_from(machine.indices)))
    plan = plan_machine(machine, byte_count, root)
    again = plan_machine(renumbered(machine, number), byte_count, None if root is None else number[root])
    assert alike(again.predictions[0].total_s, plan.predictions[0].total_s)
    assert signature(again) == signature(plan)
    assert (again.shape, again.tree_shape) == (plan.shape, plan.tree_shape)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(random_machines(9, bus_ids=False), BYTES, st.data())
def test_numbers_do_not_matter_without_bus_ids(machine: Machine, byte_count: int, data: st.DataObject) -> None:
    number = data.draw(st.permutations(machine.indices))
    plan, again = (plan_machine(one, byte_count) for one in (machine, renumbered(machine, number)))
    assert alike(again.predictions[0].total_s, plan.predictions[0].total_s)
    assert signature(again) == signature(plan)


@settings(deadline=None, max_examples=6, derandomize=True)
@given(random_machines(64), BYTES, st.data())
def test_large_machines(machine: Machine, byte_count: int, data: st.DataObject) -> None:
    number = data.draw(st.permutations(machine.indices))
    plan = plan_machine(machine, byte_count)
    check_tree(plan, None)
    check_against_the_tree_in_order(plan, None)
    check_depth(plan)
    check_crossings(plan)
    again = plan_machine(renumbered(machine, number), byte_count)
    assert signature(again) == signature(plan)
    assert alike(again.predictions[0].total_s, plan.predictions[0].total_s)


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64])
def test_nothing_is_known(size: int) -> None:
    plan = plan_machine(Machine(tuple(Gpu(index) for index in range(size))), 10**6)
    check_tree(plan, None)
    assert {edge.transport for edge in plan.edges} <= {"host"}


TESTS = REPOSITORY / "tests"
SAMPLES = sorted(json.loads((TESTS / "golden" / "topology_expected.json").read_text()))


@pytest.mark.parametrize("name", SAMPLES)
def test_saved_texts(name: str) -> None:
    machine = read_machine((TESTS / "data" / "topology" / name).read_bytes(), name)
    number = list(machine.indices)
    random.Random(name).shuffle(number)
    for byte_count in (1000, 1_724_320, 10**8):
        plan = plan_machine(machine, byte_count)
        check_tree(plan, None)
        check_against_the_tree_in_order(plan, None)
        check_depth(plan)
        check_crossings(plan)
        if list(machine.indices) == list(range(len(number))):
            again = plan_machine(renumbered(machine, number), byte_count)
            assert signature(again) == signature(plan)
            assert alike(again.predictions[0].total_s, plan.predictions[0].total_s)
