"""The parts of the search: canonical order, growth, every tree, re-rooting, and how good the search is."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.known_machines import known_machine, machine_names
from paratrain.topology.machine import Gpu, Link, LinkClass, Machine
from paratrain.topology.planning.canonical import canonical_places
from paratrain.topology.planning.growth import every_tree, grow, near_first, rerooted
from paratrain.topology.planning.scoring import Scorer
from paratrain.topology.planning.search import best_tree
from paratrain.topology.tree import Tree
from tests.paths import REPOSITORY
from tests.unit.topology.machines import machine_of, renumbered, uniform


def test_bus_ids_give_the_order() -> None:
    gpus = tuple(Gpu(index, bus_id=text) for index, text in enumerate(["0c", "0a", "0b"]))
    assert canonical_places(MachineFabric(Machine(gpus))) == [1, 2, 0]


def test_links_give_the_order_where_bus_ids_are_missing() -> None:
    machine = machine_of(["X NODE NODE NODE", "NODE X PIX NODE", "NODE PIX X NODE", "NODE NODE NODE X"])
    assert set(canonical_places(MachineFabric(machine))[:2]) == {1, 2}
    assert canonical_places(MachineFabric(uniform(5, "SYS"))) == [0, 1, 2, 3, 4]
    assert canonical_places(MachineFabric(uniform(5, "SYS")), root=3)[0] == 3


@pytest.mark.parametrize("name", machine_names())
def test_a_renumbered_machine_looks_the_same_in_its_canonical_order(name: str) -> None:
    machine = known_machine(name)
    number = list(range(len(machine.gpus)))
    random.Random(3).shuffle(number)
    pictures = []
    for one in (machine, renumbered(machine, number)):
        order = [one.indices[place] for place in canonical_places(MachineFabric(one))]
        pictures.append([[one.link_class(a, b).word for b in order] for a in order])
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 1), (3, 3), (4, 16), (5, 125)])
def test_every_tree(size: int, count: int) -> None:
    trees = {tuple(tree) for tree in every_tree(size)}
    assert len(trees) == count
    for parent in trees:
        assert Tree.from_parents(parent).root == 0


def test_growth() -> None:
    ones = [[1.0] * 8 for _ in range(8)]
    assert Tree.from_parents(grow(ones, 0)).depth == 3
    assert Tree.from_parents(grow(ones, 2, 1)).depth == 7
    assert max(map(len, Tree.from_parents(grow(ones, 0, 2)).children)) == 2
    far = [[(a < 4) != (b < 4) for b in range(8)] for a in range(8)]
    crossing = [m for m, above in enumerate(near_first(ones, far, 5)) if above is not None and far[m][above]]
    assert len(crossing) == 1


def test_another_root_keeps_the_edges() -> None:
    parent = [None, 0, 1, 1, 0]
    turned = rerooted(parent, 3)
    edges = {frozenset((m, above)) for m, above in enumerate(parent) if above is not None}
    assert {frozenset((m, above)) for m, above in enumerate(turned) if above is not None} == edges
    assert turned[3] is None


@pytest.mark.parametrize("seed", range(6))
def test_the_search_is_near_the_best_of_all_trees_of_six(seed: int) -> None:
    chance = random.Random(seed)
    words = ["NV1", "NV2", "PIX", "PHB", "NODE", "SYS"]
    links = tuple(Link(a, b, LinkClass.parse(chance.choice(words))) for a in range(6) for b in range(a + 1, 6))
    fabric = MachineFabric(Machine(tuple(Gpu(index) for index in range(6)), links))
    scorer = Scorer(fabric, 10**6)
    best = min(scorer.score(rerooted(tree, root)) for tree in every_tree(6) for root in range(6))
    assert scorer.score(best_tree(fabric, 10**6).parent) <= 1.05 * best


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, paratrain.topology.planning.compare, paratrain.topology.costs.simulate\n"
        "print([name for name in ('numpy', 'mpi4py', 'google.protobuf', 'pynvml') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
