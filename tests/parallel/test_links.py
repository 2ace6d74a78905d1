"""Links between real processes under mpirun: good ones, one that is bad, and ranks that do not end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from paratrain.launch import link_ranks
from paratrain.launch.self_launch import mpirun_arguments, mpirun_family
from paratrain.linktest.results import Limits, Verdict
from paratrain.topology.machine import CpuRank, Machine
from paratrain.topology.planning.plan import plan_machine
from tests.paths import REPOSITORY

LINKS = str(Path(__file__).with_name("links.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def run(mpirun: str, size: int, *command: str) -> subprocess.CompletedProcess[str]:
    line = mpirun_arguments(
        Path(mpirun), mpirun_family(Path(mpirun)), size, [sys.executable, *command], os.geteuid() == 0, core_count=1
    )
    return subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(done.stdout)
    return values


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process that a test has started runs on."""
    yield
    assert psutil.Process().children(recursive=True) == []


@pytest.mark.parametrize(
    ("fault", "verdict", "said"),
    [
        ("none", "ok", ""),
        ("corrupt", "wrong data", "bytes are wrong, the first at"),
        ("drop", "hang", "within 1 s"),
        ("late", "hang", "within 1 s"),
        ("raise", "error", "the cable was cut"),
        ("shared-corrupt", "wrong data", "bytes are wrong, the first at 1000"),
        ("shared-drop", "hang", "did not raise its flag"),
        ("shared-raise", "error", "the memory was taken away"),
    ],
)
def test_verdicts_between_processes(mpirun: str, fault: str, verdict: str, said: str) -> None:
    done = run(mpirun, 4, LINKS, fault, "0-2", "1")
    assert done.returncode == 0, done.stderr
    found = answer(done)
    tests = {(test["a"], test["b"]): test for test in found["tests"]}
    assert tests[0, 2]["verified"] == verdict
    assert tests[0, 2]["transport"] == ("shared" if fault == "none" or fault.startswith("shared") else "mpi")
    assert said in (tests[0, 2]["detail"] or "")
    assert {test["verified"] for pair, test in tests.items() if pair != (0, 2)} == {"ok"}
    assert ([0, 2] in found["edges"]) == (fault == "none")
    assert len(found["edges"]) == 3


def test_a_rank_that_is_lost_ends_all_and_is_named(mpirun: str) -> None:
    """It would otherwise be waited for by those that cannot know why nothing comes."""
    done = run(mpirun, 3, LINKS, "lost", "0-2", "1")
    assert done.returncode != 0
    assert "nobody gets here" not in done.stdout
    assert "testing the links, the ranks lost each other: nothing came to rank 0 from rank 2 within 7 s" in done.stderr


def test_without_a_test_one_rank_prints(mpirun: str) -> None:
    done = run(mpirun, 2, "-m", "paratrain", "topology", "--machine", "caffe-4x-pcie")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Tree (root") == 1


def test_the_verb_under_mpirun(mpirun: str, tmp_path: Path) -> None:
    """One rank prints; the file that is saved serves `train`'s --topology and this verb's --from."""
    saved = tmp_path / "plan.json"
    done = run(mpirun, 4, "-m", "paratrain", "topology", "--check", "--save", str(saved))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Tested 3 links (1.05 MB both ways, 3 times, then all at once):",
        "  rank 0-rank 1  shared memory  ok",
        "  rank 0-rank 2  shared memory  ok",
        "  rank 2-rank 3  shared memory  ok",
        "Tree: rank 0 adds 1, 2; rank 2 adds 3",
    ]
    again = run(mpirun, 4, "-m", "paratrain", "topology", "--measure", "--json", "--from", str(saved))
    assert again.returncode == 0, again.stderr
    values = answer(again)
    assert [rank["node"] for rank in values["ranks"]] == [0] * 4
    for test in values["tests"]:
        assert test["verified"] == "ok"
        assert test["gbps"] > 0
        assert test["latency_us"] > 0


def test_one_process_starts_the_ranks_itself(mpirun: str) -> None:
    command = [sys.executable, "-m", "paratrain", "topology", "--ranks", "3", "--measure", "--json"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    values = answer(done)
    assert [(test["a"], test["b"], test["verified"]) for test in values["tests"]] == [(0, 1, "ok"), (0, 2, "ok")]
    measured = {(test["a"], test["b"]): test["gbps"] for test in values["tests"]}
    for edge in values["tree"]["edges"]:
        assert edge["source"] == "measured"
        assert edge["gbps"] == pytest.approx(measured[edge["parent"], edge["child"]])


def test_ranks_that_do_not_end_are_killed_with_all_they_have_started(
    mpirun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks that hang in MPI itself, so that no limit of theirs helps."""
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text(
        "import os, subprocess, sys, time\n"
        "from mpi4py import MPI\n"
        f"place = {str(tmp_path)!r} + f'/rank{{MPI.COMM_WORLD.rank}}'\n"
        "shared = {line.split()[5] for line in open('/proc/self/maps') if '/dev/shm/' in line}\n"
        "open(place, 'w').write(' '.join([str(os.getpid()), *shared]))\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "time.sleep(600)\n"
    )

    def instead(mpirun: Path, family: str, count: int, command: list[str], *rest: Any) -> list[str]:
        return mpirun_arguments(mpirun, family, count, [sys.executable, str(sleeper)], *rest)

    monkeypatch.setattr(link_ranks, "mpirun_arguments", instead)
    plan = plan_machine(Machine(cpu_ranks=tuple(map(CpuRank, range(3)))), 1000)
    begin = time.monotonic()
    tested = link_ranks.start_ranks(plan, Limits(link_s=0.5, start_s=5.0))
    assert time.monotonic() - begin < 30
    assert [result.verdict for result in tested.results] == [Verdict.HANG, Verdict.HANG]
    assert not tested.has_tree
    assert "did not end within 9 s and were killed" in tested.results[0].detail
    assert [warning.code for warning in tested.plan.machine.warnings] == ["T04", "T04"]
    ranks = [path.read_text().split() for path in tmp_path.glob("rank*")]
    assert len(ranks) == 3
    assert not any(is_running(int(pid)) for pid, *_ in ranks)
    assert [name for _, *shared in ranks for name in shared if Path(name).exists()] == []


def is_running(pid: int) -> bool:
    """Whether a process does anything still: one that is killed stays listed until its parent has asked for it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ranks_without_an_answer_are_an_error(mpirun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from paratrain.errors import CommunicationError

    def instead(mpirun: Path, family: str, count: int, command: list[str], *rest: Any) -> list[str]:
        return mpirun_arguments(
            mpirun, family, count, [sys.executable, "-c", "import sys; sys.exit('no MPI here')"], *rest
        )

    monkeypatch.setattr(link_ranks, "mpirun_arguments", instead)
    plan = plan_machine(Machine(cpu_ranks=tuple(map(CpuRank, range(2)))), 1000)
    with pytest.raises(CommunicationError, match=r"the ranks ended \(1\) without an answer: .*no MPI here"):
        link_ranks.start_ranks(plan, Limits())
