from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from paratrain.topology.hosts import RankPlace, local_place, numa_cpus, numa_of_rank, sharing_warnings
from paratrain.topology.number_ranges import format_ranges, parse_ranges
from paratrain.topology.planner import plan_ranks
from tests.unit.topology.fake_sysfs import add_numa_nodes


@pytest.fixture
def two_nodes(tmp_path: Path) -> Path:
    add_numa_nodes(tmp_path, "0-3,8-11", "4-7,12-15", "")
    boot_id = tmp_path / "proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text("7a64dcf8-aff9-4511-9934-dbd8b1776c8a\n")
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    for name in ("pid", "ipc"):
        (tmp_path / "proc/self/ns" / name).symlink_to(f"{name}:[4026531836]")
    (tmp_path / "dev/shm").mkdir(parents=True)
    return tmp_path


def test_numa_nodes(two_nodes: Path) -> None:
    assert numa_cpus(two_nodes) == {0: (0, 1, 2, 3, 8, 9, 10, 11), 1: (4, 5, 6, 7, 12, 13, 14, 15), 2: ()}
    assert numa_cpus(two_nodes / "nowhere") == {}


@pytest.mark.parametrize(
    ("cpus", "nodes", "bound"),
    [([4, 12], (1,), 1), ([3, 4], (0, 1), None), ([99], (), None), (range(16), (0, 1), None)],
)
def test_the_numa_node_of_a_rank(two_nodes: Path, cpus: list[int], nodes: tuple[int, ...], bound: int | None) -> None:
    place = local_place(two_nodes, cpus)
    assert (place.cpus, place.numa_nodes, place.numa_node) == (tuple(cpus), nodes, bound)
    assert place.boot_id == "7a64dcf8-aff9-4511-9934-dbd8b1776c8a"
    assert (place.pid_namespace, place.ipc_namespace) == ("pid:[4026531836]", "ipc:[4026531836]")
    assert place.shared_memory_bytes is not None


def test_this_process() -> None:
    place = local_place()
    assert set(place.cpus) <= set(range(4096))
    if hasattr(os, "sched_getaffinity"):
        assert place.cpus == tuple(sorted(os.sched_getaffinity(0)))


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "statvfs", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert local_place(tmp_path / "nowhere") == RankPlace(cpus=(0, 1, 2))


def place(boot_id: str, numa_node: int | None = None, **others: str) -> RankPlace:
    nodes = () if numa_node is None else (numa_node,)
    return replace(RankPlace(boot_id, numa_nodes=nodes, shared_memory_bytes=2**34), **others)  # type: ignore[arg-type]


def test_ranks_of_one_numa_node() -> None:
    places = [place("a", 1), place("a", 0), place("b", 1), place("a", 1), place("a"), place("a")]
    assert numa_of_rank(places, [0, 0, 1, 0, 0, 0]) == [0, 1, 2, 0, 3, 3]


def test_ranks_of_one_numa_node_are_joined_first() -> None:
    places = [place("a", rank % 2) for rank in range(8)]  # bound in turn to the two NUMA nodes of one node
    tree = plan_ranks([0] * 8, numa_of_rank(places, [0] * 8))
    crossing = [(a, b) for a, b in tree.edges() if a % 2 != b % 2]
    assert crossing == [(0, 1)]
    assert tree.depth == 3
    assert tree.children[0] == (2, 4, 1)


def test_groups_within_nodes_are_joined_level_by_level() -> None:
    nodes = [0, 0, 0, 0, 1, 1, 1, 1]
    tree = plan_ranks(nodes, [0, 1, 0, 1, 0, 0, 1, 1])
    assert sorted(tree.edges()) == [(0, 1), (0, 2), (0, 4), (1, 3), (4, 5), (4, 6), (6, 7)]
    assert tree.children[0] == (2, 1, 4)
    assert plan_ranks(nodes, nodes) == plan_ranks(nodes)


def test_ranks_in_containers() -> None:
    together = [place("a", pid_namespace="pid:[1]")] * 2
    assert sharing_warnings(together, [0, 0]) == []
    apart = [together[0], replace(together[0], pid_namespace="pid:[2]")]
    (warning,) = sharing_warnings(apart, [0, 0])
    assert warning.code == "T12"
    assert (
        "ranks 0-1 run in containers of one machine that do not share process numbers (--pid=host);" in warning.message
    )
    (warning,) = sharing_warnings(together, [0, 1])
    assert "ranks 0-1 run on one machine, but MPI" in warning.message
    assert sharing_warnings([place("a"), place("b")], [0, 1]) == []


def test_little_shared_memory() -> None:
    little = replace(place("a"), shared_memory_bytes=64 * 2**20)
    (warning,) = sharing_warnings([little, little, place("b")], [0, 0, 1])
    assert warning.message.startswith("ranks 0-1 have 64 MiB of shared memory or less")
    assert sharing_warnings([little, place("b")], [0, 1]) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", ()),
        ("0", (0,)),
        ("0-2,5", (0, 1, 2, 5)),
        (" 3 , 1-2 ", (1, 2, 3)),
        ("2-1", None),
        ("a", None),
        ("1-", None),
        ("-1", None),
        ("0-99999999999", None),
        ("\u0661", None),
    ],
)
def test_ranges(text: str, numbers: tuple[int, ...] | None) -> None:
    assert parse_ranges(text) == numbers
    if numbers:
        assert parse_ranges(format_ranges(numbers)) == numbers
