from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.topology.cores import CorePlace, CoreShare, divide, local_core_place
from tests.unit.topology.fake_sysfs import add_numa_nodes


def place(*cpus: int, machine: str = "a", quota: float | None = None, group: str = "") -> CorePlace:
    return CorePlace(machine, tuple((cpu,) for cpu in cpus), quota, group)


def shares(*places: CorePlace) -> list[CoreShare]:
    return [divide(places, rank) for rank in range(len(places))]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def add_siblings(root: Path, *cores: tuple[int, ...]) -> None:
    for core in cores:
        for cpu in core:
            write(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", ",".join(map(str, core)))


def test_hyper_threads_of_a_core_stay_together_and_cores_of_a_numa_node_too(tmp_path: Path) -> None:
    add_numa_nodes(tmp_path, "0,2,4,6", "1,3,5,7")
    add_siblings(tmp_path, (0, 4), (1, 5), (2, 6), (3, 7))
    found = local_core_place(tmp_path, range(8))
    assert found.cores == ((0, 4), (2, 6), (1, 5), (3, 7))
    first, second = shares(found, found)
    assert (first.cpus, second.cpus) == ((0, 2, 4, 6), (1, 3, 5, 7))
    assert (first.thread_count, first.cpu_count, first.is_narrowed) == (2, 4, True)
    assert local_core_place(tmp_path, [4, 5]).cores == ((4,), (5,)), "of a core that is only partly ours"


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert local_core_place(tmp_path / "nowhere", [3, 1]) == CorePlace("", ((1,), (3,)))


def test_a_rank_alone_keeps_all() -> None:
    (share,) = shares(place(0, 1, 2))
    assert share == CoreShare((0, 1, 2), 3, 3, is_narrowed=False, is_limited=False, is_crowded=False)


def test_ranks_that_their_launcher_has_bound_keep_their_cores() -> None:
    found = shares(place(0, 1), place(2, 3), place(0, 1, machine="b"))
    assert [(share.cpus, share.thread_count, share.is_narrowed) for share in found] == [
        ((0, 1), 2, False), ((2, 3), 2, False), ((0, 1), 2, False),
    ]  # fmt: skip


def test_ranks_bound_to_one_socket_divide_it() -> None:
    found = shares(place(0, 1), place(2, 3), place(0, 1), place(2, 3))
    assert [share.cpus for share in found] == [(0,), (2,), (1,), (3,)]
    assert all(share.is_narrowed and share.thread_count == 1 for share in found)


def test_sets_that_overlap_in_part_are_left_alone() -> None:
    first, second = shares(place(0, 1, 2, 3), place(2, 3, 4, 5))
    assert (first.cpus, first.thread_count, first.is_narrowed) == ((0, 1, 2, 3), 2, False)
    assert (second.cpus, second.thread_count, second.is_narrowed) == ((2, 3, 4, 5), 2, False)


def test_more_ranks_than_cores() -> None:
    for share in shares(*[place(0, 1)] * 3):
        assert share == CoreShare((0, 1), 1, 1, is_narrowed=False, is_limited=False, is_crowded=True)


def test_a_quota_is_divided_among_its_group_and_nobody_is_pinned() -> None:
    cpus = range(64)
    limited = place(*cpus, quota=8.5, group="job")
    for share in shares(limited, limited):
        assert (share.thread_count, share.cpu_count, len(share.cpus)) == (4, 4, 64)
        assert (share.is_narrowed, share.is_limited, share.is_crowded) == (False, True, False)
    apart = shares(*(place(*cpus, quota=8, group=name) for name in ("one", "two")))
    assert [share.thread_count for share in apart] == [8, 8]
    (generous,) = shares(place(0, 1, quota=4, group="job"))
    assert (generous.thread_count, generous.is_limited) == (2, False)
    (little,) = shares(place(0, 1, quota=0.5, group="job"))
    assert (little.thread_count, little.cpu_count, little.is_crowded) == (1, 1, False)


@given(core_count=st.integers(1, 40), rank_count=st.integers(1, 40))
def test_shares_are_even_and_nothing_is_given_twice(core_count: int, rank_count: int) -> None:
    found = shares(*[place(*range(core_count))] * rank_count)
    assert len({share.thread_count for share in found}) == 1
    if all(share.is_narrowed for share in found):
        assert sorted(cpu for share in found for cpu in share.cpus) == list(range(core_count))
        assert all(len(share.cpus) - share.thread_count in (0, 1) for share in found)
    else:
        assert rank_count == 1 or all(share.is_crowded for share in found)
        assert rank_count == 1 or rank_count > core_count


@pytest.mark.parametrize(
    ("groups", "files", "quota", "where"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5, ""),
        ("0::/job/step\n", {"job/cpu.max": "300000 100000", "job/step/cpu.max": "max 100000"}, 3.0, "job"),
        ("0::/job/step\n", {"job/cpu.max": "300000 100000", "job/step/cpu.max": "100000 100000"}, 1.0, "job/step"),
        ("0::/host/path\n", {"cpu.max": "400000 100000"}, 4.0, ""),
        (
            "3:cpu,cpuacct:/docker/ab\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1.5,
            "cpu,cpuacct",
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, None),
        ("0::/\n", {"cpu.max": "max 100000"}, None, None),
        ("0::/\n", {}, None, None),
    ],
)
def test_the_quota_of_a_control_group(
    tmp_path: Path, groups: str, files: dict[str, str], quota: float | None, where: str | None
) -> None:
    write(tmp_path / "proc/self/cgroup", groups)
    for name, text in files.items():
        write(tmp_path / "sys/fs/cgroup" / name, text)
    found = local_core_place(tmp_path, [0])
    assert found.quota == quota
    assert found.quota_group == ("" if where is None else f" {tmp_path / 'sys/fs/cgroup' / where}")
