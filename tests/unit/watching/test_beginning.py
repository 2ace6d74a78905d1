"""Ranks that begin: which processes they are, what is wrong with them, and a guard that ends them; no MPI."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from paratrain.watching.beginning import Beginning, Started, find_ranks
from paratrain.watching.guard import StartGuard
from tests.integration.cli import ENVIRONMENT

HOST = socket.gethostname()


def process(folder: Path, number: int, parent: int, name: str, state: str = "S", **environment: str) -> None:
    """Write what /proc tells of a process."""
    place = folder / str(number)
    place.mkdir(exist_ok=True)
    (place / "comm").write_text(f"{name}\n")
    (place / "stat").write_text(f"{number} ({name}) {state} {parent} 0 0\n")
    (place / "environ").write_bytes(b"".join(f"{key}={value}\0".encode() for key, value in environment.items()))


def rank(folder: Path, number: int, rank: int, state: str = "S", parent: int = 10) -> None:
    process(folder, number, parent, "python", state, PMI_RANK=str(rank), PMI_SIZE="3", MPI_LOCALNRANKS="3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    process(tmp_path, 10, 1, "hydra_pmi_proxy")
    for number in range(3):
        rank(tmp_path, 20 + number, number)
    return tmp_path


def test_ranks_are_what_a_launcher_has_started(folder: Path) -> None:
    rank(folder, 30, 1, parent=21)  # a worker of rank 1 has its environment
    process(folder, 31, 10, "ssh")
    everything = (10, 20, 21, 22, 30, 31, 32)
    assert find_ranks(everything, folder) == Started({0: 20, 1: 21, 2: 22}, 3, is_one_host=True)
    rank(folder, 22, 2, state="Z")  # ended, and nobody has asked how
    assert find_ranks(everything, folder).processes == {0: 20, 1: 21}
    open_mpi = {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    process(folder, 40, 41, "python", **open_mpi)
    process(folder, 41, 1, "prted")
    assert find_ranks([40], folder) == Started({5: 40}, 8, is_one_host=False)


def told(folder: Path, beginning: Beginning, seconds: int, *numbers: int, are_connected: bool = False) -> list[str]:
    """What is said in so many seconds, at one look a second."""
    begin, said = 100.0 if not beginning._seen else 1000.0, []
    for second in range(seconds):
        found = beginning.look(find_ranks(numbers, folder), begin + second, are_connected=are_connected)
        said += [] if found is None else [f"{second} s: {found}"]
    return said


def test_a_rank_that_is_gone_is_named_after_a_while(folder: Path) -> None:
    beginning = Beginning(folder=folder)
    assert told(folder, beginning, 60, 20, 21, 22) == []
    expected = (
        f"6 s: rank 1 of 3 on {HOST}: the process has ended before the ranks were connected, and the others would wait for "
        "it for ever (process 21)"
    )
    assert told(folder, beginning, 7, 20, 22) == [expected]


def test_a_rank_that_never_came_is_named_where_all_are_on_one_host(folder: Path) -> None:
    [said] = told(folder, Beginning(folder=folder), 7, 20, 21)
    assert said.startswith(f"6 s: rank 2 of 3 on {HOST}: the process has ended before")
    assert told(folder, Beginning(late_s=2.0, folder=folder), 8, 20, 21) == []


def test_many_ranks_have_more_time_to_be_started(folder: Path) -> None:
    """500 ranks have 10 s more; one that was seen before has not."""
    some = Started({0: 20, 1: 21}, 500, is_one_host=True)
    assert Beginning(folder=folder).look(some, 100.0) is None
    beginning = Beginning(folder=folder)
    assert [beginning.look(some, second) is None for second in (0.0, 14.0, 15.1)] == [True, True, False]
    fewer, beginning = Started({0: 20}, 500, is_one_host=True), Beginning(folder=folder)
    said = [beginning.look(found, second) for found, second in ((some, 0.0), (fewer, 1.0), (fewer, 6.1))]
    assert said[:2] == [None, None]
    assert str(said[2]).startswith("rank 1 of 500")


def test_launchers_notice_those_that_leave_later(folder: Path) -> None:
    beginning = Beginning(folder=folder)
    assert told(folder, beginning, 2, 20, 21, 22) == []
    assert told(folder, beginning, 60, 20, 22, are_connected=True) == []
    assert told(folder, beginning, 60) == []  # all have ended


def test_a_rank_that_is_stopped_is_named_unless_all_are(folder: Path) -> None:
    beginning = Beginning(folder=folder)
    rank(folder, 22, 2, state="T")
    expected = f"21 s: rank 2 of 3 on {HOST}, at its start: stopped by a signal (process 22) for 21 s"
    assert told(folder, beginning, 22, 20, 21, 22, are_connected=True) == [expected]
    for number in range(3):
        rank(folder, 20 + number, number, state="T")
    assert told(folder, Beginning(folder=folder), 60, 20, 21, 22) == []


# Starts two ranks as mpirun does, waits for both, and tells how the first has ended.
LAUNCHER = """\
#!/bin/sh
export PMI_SIZE=2 MPI_LOCALNRANKS=2
PMI_RANK=0 "$@" & first=$!
PMI_RANK=1 "$@" & second=$!
wait $first; code=$?
wait $second
exit $code
"""
RANK = """
import os, sys, time
from paratrain.watching.guard import StartGuard
number = int(os.environ["PMI_RANK"])
guard = StartGuard(number, 2, late_s=-4.0)
{code}
"""


def launch(folder: Path, code: str) -> tuple[subprocess.CompletedProcess[str], float]:
    launcher = folder / "mpirun"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    (folder / "rank.py").write_text(RANK.format(code=textwrap.dedent(code)))
    begin = time.monotonic()
    command = [str(launcher), sys.executable, str(folder / "rank.py")]
    # All who hold stderr must have gone before this returns.
    done = subprocess.run(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, timeout=40, check=False)
    return done, time.monotonic() - begin


def test_a_guard_ends_ranks_that_would_wait_for_ever(tmp_path: Path) -> None:
    done, seconds = launch(tmp_path, "os._exit(3) if number == 1 else time.sleep(30)")
    assert done.returncode == 128 + 9
    assert f"paratrain: rank 1 of 2 on {HOST}: the process has ended before the ranks were connected" in done.stderr
    assert seconds < 20


def test_a_guard_leaves_when_its_rank_says_so(tmp_path: Path) -> None:
    code = """
        guard.connected()
        process = guard._process
        guard.close()
        guard.close()
        assert process.returncode == 0
        print("well", number, file=sys.stderr)
    """
    done, _ = launch(tmp_path, code)
    assert (done.returncode, sorted(done.stderr.splitlines())) == (0, ["well 0", "well 1"])


def test_no_guard_is_started_where_it_is_of_no_use() -> None:
    assert os.environ.get("PMI_RANK") is None
    for local in ((None, None), (0, 1), (2, 4), (0, 2)):  # the last: by no launcher
        assert StartGuard(*local)._process is None
