"""Machines and trees that were saved come back as they were; damaged files are explained."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.errors import TopologyError
from paratrain.topology.files.report import plan_values
from paratrain.topology.files.saved import read_saved_machine, read_verdicts
from paratrain.topology.files.saved_tree import SavedTree, place_on_ranks, read_saved_tree
from paratrain.topology.known_machines import known_machine, machine_names
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import CpuRank, Gpu, Link, LinkClass, Machine, MachineWarning
from paratrain.topology.planner import binomial, plan_ranks
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.text.matrix import read_machine
from paratrain.topology.tree import Tree, chain, star
from tests.paths import DATA

FULL = Machine(
    (
        Gpu(0, "T4", "0000:3b:00.0", "GPU-1", 16 << 30, None, 0, "0-9", "7.5", 3, 16, 2560, 1590, False, 1),
        Gpu(2, "T4", numa_node=1, pci_path=("pci0000:00", "0000:3b:00.0"), display_active=True),
        Gpu(5, 'a "strange" <name> \u00fc'),
    ),
    (
        Link(0, 2, LinkClass.parse("NV2"), "OK", "OK"),
        Link(0, 5, LinkClass.parse("PHB"), "GNS"),
        Link(2, 5, LinkClass.parse("?")),
    ),
    source="NVML",
    warnings=(MachineWarning("T03", "copied wrong bytes", (0, 5)), MachineWarning("T06", "IOMMU")),
    nvswitch=True,
    driver_version="580.1",
    cuda_version="13.0",
    measured={(0, 2): LinkFigure(45.125e9, 2.5e-6, origin="measured")},
    vetoes={(0, 5): "wrong data"},
    network=LinkFigure(12.5e9, 11e-6, origin="measured"),
    network_cards=2,
)


def saved(machine: Machine, **options: Any) -> bytes:
    return json.dumps(plan_values(plan_machine(machine, 10**6, **options), {(0, 2): "ok"})).encode()


def test_a_machine_comes_back_whole() -> None:
    back = read_saved_machine(saved(FULL), "box.json")
    assert (back.gpus, back.links, back.warnings, back.nvswitch) == (FULL.gpus, FULL.links, FULL.warnings, True)
    assert (back.driver_version, back.cuda_version, back.vetoes) == ("580.1", "13.0", {(0, 5): "wrong data"})
    assert back.measured == {(0, 2): LinkFigure(45.125e9, 2.5e-6, origin="file")}
    assert (back.network, back.network_cards) == (LinkFigure(12.5e9, 11e-6, origin="file"), 2)
    assert back.source == "NVML, saved in box.json"
    assert read_verdicts(saved(FULL), "box.json") == {(0, 2): "ok"}
    assert read_saved_machine(saved(back), "again.json").source == "NVML, saved in again.json"


def test_ranks_on_cpu_cores_come_back() -> None:
    machine = Machine(source="CPU ranks", cpu_ranks=(CpuRank(0, 0, "0-3"), CpuRank(1)), no_gpu_reason="no driver")
    back = read_saved_machine(saved(machine), "cpu.json")
    assert (back.cpu_ranks, back.gpus, back.no_gpu_reason) == (machine.cpu_ranks, (), "no driver")
    assert (back.links, back.measured) == ((), {})
    figure = LinkFigure(5e9, 4e-6, origin="measured")
    back = read_saved_machine(saved(machine.with_measured({(0, 1): figure})), "cpu.json")
    assert (back.links, back.measured) == ((), {(0, 1): LinkFigure(5e9, 4e-6, origin="file")})


def without_sources(values: dict[str, Any]) -> dict[str, Any]:
    """Where a machine was read from changes on the way through a file; nothing else does."""
    result = copy.deepcopy(values)
    result.pop("source")
    return result


@pytest.mark.parametrize("name", machine_names())
def test_the_plan_of_a_saved_machine_is_the_same(name: str) -> None:
    first = plan_values(plan_machine(known_machine(name), 10**7))
    back = read_saved_machine(json.dumps(first).encode(), "box.json")
    assert without_sources(plan_values(plan_machine(back, 10**7))) == without_sources(first)


@pytest.mark.parametrize("name", ["dgx1_p100_glued_header_soc.txt", "l20_4gpu_node_pix_middle_pair.txt"])
def test_text_and_what_was_saved_of_it_give_one_plan(name: str) -> None:
    first = plan_values(plan_machine(read_machine((DATA / "topology" / name).read_bytes(), name), 10**7))
    back = read_saved_machine(json.dumps(first).encode(), "box.json")
    assert without_sources(plan_values(plan_machine(back, 10**7))) == without_sources(first)


def test_a_tree_comes_back_with_its_order() -> None:
    plan = plan_machine(known_machine("dgx1-v100"), 10**5, 3)
    back = read_saved_tree(json.dumps(plan_values(plan)).encode(), "plan.json")
    assert (back.tree, back.kind, back.numbers, back.shape) == (plan.tree, "GPU", tuple(range(8)), plan.tree_shape)


def test_a_machine_without_a_source() -> None:
    assert read_saved_machine(spoilt(source=None), "box.json").source == "unknown, saved in box.json"


def spoilt(**changes: Any) -> bytes:
    values = json.loads(saved(FULL))
    for path, value in changes.items():
        target: Any = values
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split("__")]
        for part in parents:
            target = target[part]
        target[last] = value
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "box.json: is empty; write it again with: paratrain topology --save FILE"),
        (b'{"schema": 1,', "box.json:1:14: the JSON is damaged or cut"),
        (b'{"schema": 1, "gpus": "\xff"}', "box.json: is not UTF-8 from byte 23 on"),
        (b'{"a":' * 100_000, "box.json: the JSON is nested too deep"),
        (spoilt(schema=2), "box.json: expected a saved plan of schema 1, found schema 2"),
        (spoilt(schema=True), "box.json: expected a saved plan of schema 1, found schema true"),
        (spoilt(gpus=None), "box.json: gpus: expected a list, found nothing"),
        (spoilt(gpus__0__index="x"), r'box.json: gpus\[0\].index: expected a whole number from 0 on, found "x"'),
        (spoilt(gpus__1__pci_path=[1]), r"box.json: gpus\[1\].pci_path: expected a list of texts, found \[1\]"),
        (spoilt(links__1__class="NV0"), r"box.json: links\[1\].class: 'NV0' is no link word"),
        (spoilt(links__1__class="X"), r"box.json: links\[1\]: expected a link between two GPUs"),
        (spoilt(links__0__a=9), "box.json: link 2-9 does not join two of the GPUs"),
        (spoilt(links__0__gbps=0), r"box.json: links\[0\].gbps: expected a number from 1e-9 to 1e9, found 0"),
        (spoilt(links__0__gbps=1e-300), r"box.json: links\[0\].gbps: expected a number from 1e-9 to 1e9, found 1e-300"),
        (spoilt(links__0__gbps=1e300), r"box.json: links\[0\].gbps: expected a number from 1e-9 to 1e9, found 1e\+300"),
        (spoilt(links__0__gbps=10**400), r"box.json: links\[0\].gbps: expected a number from 0 on, found 1000"),
        (b'{"schema": 1' + b"0" * 5000 + b"}", "box.json: the JSON cannot be read .*digits"),
        (spoilt(links__0__gbps=float("nan")), r"box.json: links\[0\].gbps: expected a number from 0 on, found NaN"),
        (spoilt(warnings__0__pair=[1]), r"box.json: warnings\[0\].pair: expected null or a list of two indices"),
        (spoilt(gpus__0__index=2), "box.json: a GPU index appears twice"),
        (spoilt(switch="yes"), 'box.json: switch: expected true, false or null, found "yes"'),
        (b'{"schema": 1, "gpus": [[]]}', r"box.json: gpus\[0\]: expected an object, found \[\]"),
    ],
)
def test_damage_is_explained(content: bytes, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        read_saved_machine(content, "box.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (spoilt(tree=None), "box.json: tree: expected an object, found nothing"),
        (spoilt(tree__root=4), "box.json: its tree names GPU 4, which the file does not list"),
        (spoilt(tree__root=None), "box.json: tree.root: expected a whole number from 0 on, found nothing"),
        (spoilt(tree__edges=[]), "box.json: does not hold a tree of all its members"),
        (spoilt(tree__edges__1__child=0), "box.json: does not hold a tree of all its members"),
        (spoilt(gpus=[]), "box.json: the saved plan is of a machine without GPUs, and holds no tree of ranks"),
    ],
)
def test_trees_that_are_none(content: bytes, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        read_saved_tree(content, "box.json")


def of(tree: Tree, nodes: list[int] | None = None) -> SavedTree:
    return SavedTree("plan.json", "GPU", tuple(range(tree.size)), tuple(nodes or [0] * tree.size), tree)


def test_the_tree_of_one_node_on_its_ranks() -> None:
    assert place_on_ranks(of(chain(4)), [0] * 4) == chain(4)
    assert place_on_ranks(of(star(3)), [7] * 3) == star(3)
    # The root is rank 0, the others follow in their order: members 2, 0, 1, 3 are ranks 0, 1, 2, 3.
    rooted = Tree.from_edges(4, 2, [(2, 3), (2, 0), (3, 1)])
    assert place_on_ranks(of(rooted), [0] * 4) == Tree.from_edges(4, 0, [(0, 3), (0, 1), (3, 2)])


def test_the_tree_of_one_node_on_each_of_several() -> None:
    assert place_on_ranks(of(binomial(2)), [0, 0, 1, 1]) == plan_ranks([0, 0, 1, 1])
    assert place_on_ranks(of(binomial(4)), [5] * 4 + [9] * 4 + [2] * 4) == plan_ranks([5] * 4 + [9] * 4 + [2] * 4)
    # Nodes take turns: ranks 0 and 2 on the one, 1 and 3 on the other.
    assert place_on_ranks(of(chain(2)), [0, 1, 0, 1]) == Tree.from_edges(4, 0, [(0, 2), (1, 3), (0, 1)])


def test_the_tree_of_two_nodes() -> None:
    saved_tree = of(Tree.from_edges(4, 2, [(2, 3), (2, 0), (0, 1)]), [0, 0, 1, 1])
    assert place_on_ranks(saved_tree, [0, 0, 1, 1]) == Tree.from_edges(4, 0, [(0, 1), (0, 2), (2, 3)])
    assert place_on_ranks(saved_tree, [0, 1, 0, 1]) == Tree.from_edges(4, 0, [(0, 2), (0, 1), (1, 3)])


@pytest.mark.parametrize(
    ("nodes_of_plan", "nodes_of_ranks", "message"),
    [
        ([0, 0, 0], [0, 0], "its tree joins 3 GPUs of one node, but this run has 2 ranks on one node; start 3 ranks"),
        ([0, 0], [0, 0, 1], "this run has 1 rank and 2 ranks on each of 2 nodes; start 2 ranks on every node"),
        ([0, 0, 0, 0], [0, 0, 1, 1], "its tree joins 4 GPUs of one node, but this run has 2 ranks on each of 2 nodes"),
        ([0, 0, 1, 1], [0, 0, 0, 0], "joins 4 GPUs of 2 nodes, but this run has 4 ranks on one node; start 2 ranks on"),
    ],
)
def test_counts_that_do_not_match(nodes_of_plan: list[int], nodes_of_ranks: list[int], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        place_on_ranks(of(chain(len(nodes_of_plan)), nodes_of_plan), nodes_of_ranks)


def test_warnings_of_the_tree_belong_to_the_tree() -> None:
    values = plan_values(plan_machine(known_machine("dgx2"), 10**6, shape="star"))
    assert [warning["code"] for warning in values["warnings"]] == ["T10"]
    assert read_saved_machine(json.dumps(values).encode(), "box.json").warnings == ()


def places_in(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in nested lists and dictionaries."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [path, *(place for key, value in items for place in places_in(value, (*path, key)))]


VALID = json.loads(saved(FULL))
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(["", "NV2", "SHM", "x", "ranks"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "index", "root"]), inner, max_size=2)
    ),
    max_leaves=3,
)


@settings(max_examples=400)
@given(st.sampled_from(places_in(VALID)[1:]), JUNK)
def test_whatever_stands_in_a_file_is_read_or_explained(place: tuple[Any, ...], junk: Any) -> None:
    values = copy.deepcopy(VALID)
    target: Any = values
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = junk
    content = json.dumps(values).encode()
    for read in (read_saved_machine, read_saved_tree, read_verdicts):
        assert complaint(read, content).startswith("box.json")


def complaint(read: Callable[[bytes, str], object], content: bytes) -> str:
    """What is said of a file that cannot be used; its name where it can."""
    try:
        read(content, "box.json")
    except TopologyError as error:
        return str(error)
    return "box.json"


@given(st.integers(0, len(saved(FULL))))
def test_a_file_that_was_cut_is_explained(length: int) -> None:
    with pytest.raises(TopologyError, match=r"^box\.json.*(is empty|damaged or cut)"):
        read_saved_machine(saved(FULL)[: length - 1 if length else 0], "box.json")
