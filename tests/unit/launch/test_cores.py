from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from paratrain import threads
from paratrain.comm import Communicator, LocalCommunicator
from paratrain.comm.threads import run_threads
from paratrain.launch import cores
from paratrain.launch.cores import Cores, describe, find_problem, take_cores
from paratrain.topology.cores import CorePlace, CoreShare
from tests.optional import need_onednn
from tests.paths import REPOSITORY


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[int]]:
    """A machine of eight cores on which nothing is really set; what each thread was bound to, by its number."""
    bound: dict[int, set[int]] = {}
    monkeypatch.setattr(cores, "usable_cpus", lambda: range(8))
    monkeypatch.setattr(
        cores, "local_core_place", lambda cpus: CorePlace("a", tuple((cpu,) for cpu in sorted(cpus or range(8))))
    )
    monkeypatch.setattr(cores, "set_thread_count", lambda count, has_room: None)
    monkeypatch.setattr(cores, "_pin", lambda cpus: bound.update({threading.get_ident(): set(cpus)}) or True)
    return bound


def test_ranks_divide_the_cores_and_stay_on_them(machine: dict[int, set[int]]) -> None:
    found = run_threads(2, lambda communicator: take_cores(communicator, environ={}))
    assert found[0] == found[1]
    assert [(one.thread_count, one.share.cpus, one.is_pinned, one.worker_count) for one in found[0]] == [
        (4, (0, 1, 2, 3), True, 3), (4, (4, 5, 6, 7), True, 3),
    ]  # fmt: skip
    assert sorted(machine.values(), key=min) == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    assert describe(found[0]) == "4 in each rank, pinned to cores 0-3 / 4-7"
    assert find_problem(found[0]) is None


@pytest.mark.parametrize(
    ("asked", "environ", "count", "source"),
    [
        (None, {}, 4, ""),
        (None, {"OMP_NUM_THREADS": "3,1"}, 3, "OMP_NUM_THREADS"),
        (None, {"OMP_NUM_THREADS": "many"}, 4, ""),
        (2, {"OMP_NUM_THREADS": "3"}, 2, "--threads"),
    ],
)
def test_the_option_beats_the_variable_and_both_the_default(
    machine: dict[int, set[int]], asked: int | None, environ: dict[str, str], count: int, source: str
) -> None:
    def take(communicator: Communicator) -> list[Cores]:
        return take_cores(communicator, asked, environ=environ)

    for one in run_threads(2, take)[0]:
        assert (one.thread_count, one.source, len(one.share.cpus)) == (count, source, 4), (
            "pinned to the share all the same"
        )


def test_ranks_divide_the_cores_near_their_gpus(machine: dict[int, set[int]]) -> None:
    near = ((0, 1, 2, 3), (4, 5, 6, 7), (4, 5, 6, 7), (90, 91))  # the last GPU's are not for this job
    found = run_threads(3, lambda communicator: take_cores(communicator, near=near[communicator.rank], environ={}))[0]
    assert [one.share.cpus for one in found] == [(0, 1, 2, 3), (4, 5), (6, 7)]
    assert sorted(machine.values(), key=min) == [{0, 1, 2, 3}, {4, 5}, {6, 7}]
    found = run_threads(2, lambda communicator: take_cores(communicator, near=near[3], environ={}))[0]
    assert [one.share.cpus for one in found] == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_nobody_is_pinned_who_is_not_to_be(machine: dict[int, set[int]]) -> None:
    off = run_threads(2, lambda communicator: take_cores(communicator, pin=False, environ={}))[0]
    assert describe(off) == "4 in each rank, on whatever cores the system gives them"
    many = run_threads(2, lambda communicator: take_cores(communicator, 5, environ={}))[0]
    assert find_problem(many) == "10 threads (2 ranks) compute on a machine where they have 8 CPUs: expect slow steps"
    alone = take_cores(LocalCommunicator(), environ={})
    assert describe(alone) == "8, on cores 0-7"
    crowd = run_threads(9, lambda communicator: take_cores(communicator, environ={}))[0]
    assert describe(crowd) == "1 in each rank, on cores 0-7"
    assert "9 ranks on a machine have the time of fewer cores: each computes with 1 thread" in (
        find_problem(crowd) or ""
    )
    assert not machine


def test_a_lone_rank_with_too_many_threads_is_warned(
    machine: dict[int, set[int]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "paratrain"):
        cores.log_cores(take_cores(LocalCommunicator(), 9, environ={}))
    assert [record.getMessage() for record in caplog.records] == [
        "Threads: 9, on cores 0-7 (--threads)",
        "9 threads compute on a machine where they have 8 CPUs: expect slow steps",
    ]


def test_waiting_threads_spin_only_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_wanted", None)
    monkeypatch.setattr(threads, "_spins", threads._SHORT)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # the BLAS of this process is left alone
    short = threads.openmp_settings({})["GOMP_SPINCOUNT"]
    threads.set_thread_count(2, has_room=True)
    assert threads.wanted_thread_count() == 2
    assert int(threads.openmp_settings({})["GOMP_SPINCOUNT"]) > int(short)
    threads.set_thread_count(1)
    assert threads.openmp_settings({}) == {"OMP_NUM_THREADS": "1", "KMP_WARNINGS": "off", "OMP_WAIT_POLICY": "passive"}
    user = {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "7", "KMP_WARNINGS": "on"}
    assert threads.openmp_settings(user) == {}


def text_of_nodes(*nodes: list[tuple[int, ...]]) -> str:
    def cores_of(node: int, cpus: tuple[int, ...]) -> Cores:
        share = CoreShare(cpus, 1, len(cpus), is_narrowed=True, is_limited=False, is_crowded=False)
        return Cores(f"node {node}", share, 1, "", is_pinned=True)

    return describe([cores_of(node, cpus) for node, ranks in enumerate(nodes) for cpus in ranks])


def test_many_ranks_and_nodes_are_named_briefly() -> None:
    assert text_of_nodes([(0,), (1,)], [(0,), (1,)]) == "1 in each rank, pinned to cores 0 / 1 of each node"
    assert text_of_nodes([(0,), (1,)], [(0, 1)]).endswith("cores 0 / 1 of the first node, and others on other nodes")
    many = text_of_nodes([(rank,) for rank in range(64)])
    assert many == "1 in each rank, pinned to cores 0 / 1 / 2 / 3 / 4 / 5 / 6 / ... / 63"


LOAD = """
import os, sys
from paratrain.threads import load_numpy, set_thread_count
assert "numpy" not in sys.modules
before = dict(os.environ)
load_numpy()
assert dict(os.environ) == before
from threadpoolctl import threadpool_info
count = lambda: [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
loaded = count()
set_thread_count(2)
from paratrain.backends import create_backend
backend = create_backend(sys.argv[1])
print(loaded, count(), getattr(backend, "library", None) and backend.library.thread_count)
"""


def load(backend: str, **variables: str) -> str:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    environment["PYTHONPATH"] = str(REPOSITORY)
    command = [sys.executable, "-c", LOAD, backend]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_pools_begin_with_one_thread_and_grow_unless_the_user_has_said_how_many() -> None:
    assert load("numpy") == "[1] [2] None"
    if len(os.sched_getaffinity(0)) > 1:  # OpenBLAS has never more threads than cores at its start
        assert load("numpy", OPENBLAS_NUM_THREADS="2").startswith("[2] [2]")
    assert load("numpy", OPENBLAS_NUM_THREADS="1").startswith("[1] [1]")


def test_onednn_gets_the_same_number_of_threads() -> None:
    need_onednn()
    assert load("onednn") == "[1] [2] 2"


PIN = """
import os, sys, threading
from paratrain.launch.cores import _pin
begin, stop = threading.Event(), threading.Event()
other = threading.Thread(target=lambda: (begin.set(), stop.wait()))
other.start(); begin.wait()
cpu = min(os.sched_getaffinity(0))
print(_pin([cpu]), {tuple(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")} == {(cpu,)})
print(_pin([1 << 14]))
stop.set()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux binds threads")
def test_every_thread_of_a_process_is_pinned_and_a_refusal_is_no_error() -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", PIN], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "False"]
