"""Real processes under mpirun: messages, the tree, and how ranks end when one of them fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paratrain.launch.self_launch import mpirun_arguments, mpirun_family

ROOT = Path(__file__).parents[2]
RANKS = str(Path(__file__).with_name("ranks.py"))
# What the issue allows between a rank's failure and the end of all, and what starting the processes may take on top.
END_LIMIT_S = 10.0
START_LIMIT_S = 30.0

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(mpirun: str) -> Run:
    """run(size, *arguments): ranks.py with these arguments under mpirun."""
    family = mpirun_family(Path(mpirun))

    def run(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = mpirun_arguments(
            Path(mpirun), family, size, [sys.executable, RANKS, *arguments], os.geteuid() == 0, core_count=1
        )
        return subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=END_LIMIT_S + START_LIMIT_S,
            check=False,
        )

    return run


def texts(done: subprocess.CompletedProcess[str]) -> str:
    assert "nobody gets here" not in done.stdout
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize("case", ["exchange", "exchanges"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_exchanges(run: Run, size: int, case: str) -> None:
    """The sums are checked by the ranks; here: the same bits on all ranks and on two runs."""
    hashes = set()
    for _ in range(2):
        done = run(size, case)
        assert done.returncode == 0, done.stderr
        lines = sorted(done.stdout.split("\n")[:-1])
        assert [line.split(":")[0] for line in lines] == [f"{rank} of {size}" for rank in range(size)]
        hashes.update(line.split(": ")[1] for line in lines)
    assert len(hashes) == 1


@pytest.mark.parametrize("size", [1, 2, 4])
def test_messages_and_objects(run: Run, size: int) -> None:
    done = run(size, "objects")
    assert done.returncode == 0, done.stderr
    kind = "mpi" if size > 1 else "local"
    assert sorted(done.stdout.splitlines()) == [f"{rank} of {size}: {kind}" for rank in range(size)]


@pytest.mark.parametrize("size", [2, 4])
def test_an_exception_on_one_rank_ends_all_and_names_it(run: Run, size: int) -> None:
    text = texts(run(size, "dies", "exception"))
    place = f"paratrain: rank {size - 1} of {size} on {socket.gethostname()}"
    assert f"{place}: ZeroDivisionError: a bug on one rank" in text
    assert text.count("Traceback (most recent call last)") == 1
    assert 'ranks.py", line' in text


def test_the_end_comes_within_ten_seconds(run: Run) -> None:
    """Measured against a run of the same start without a failure, since starting takes its time on a busy machine."""
    started = time.monotonic()
    assert run(3, "script", "good").returncode == 0
    good_s = time.monotonic() - started
    started = time.monotonic()
    texts(run(3, "dies", "exception"))
    assert time.monotonic() - started < good_s + END_LIMIT_S


def test_bad_input_on_one_rank_has_no_traceback(run: Run) -> None:
    text = texts(run(3, "dies", "user"))
    assert f"paratrain: rank 2 of 3 on {socket.gethostname()}: record '00000007' is not a Datum\n" in text
    assert "Traceback" not in text


def test_an_interrupt_and_an_exit_code_end_all(run: Run) -> None:
    text = texts(run(2, "dies", "interrupt"))
    assert "rank 1 of 2" in text
    assert "interrupted" in text
    assert "Traceback" not in text
    assert run(2, "dies", "exit").returncode == 7


def test_the_same_error_on_all_ranks_is_reported_once(run: Run) -> None:
    text = texts(run(4, "all_fail"))
    assert text.count("label 12 is out of range") == 1
    assert "rank 0 of 4" in text


def test_set_up_that_fails_alike_everywhere(run: Run) -> None:
    done = run(4, "bad_input", "all")
    assert done.returncode == 1
    assert texts(done).count("paratrain: no such file: 'train_lmdb'\n") == 1
    assert "Traceback" not in done.stderr


def test_set_up_that_fails_on_some_ranks(run: Run) -> None:
    done = run(4, "bad_input", "some")
    assert done.returncode == 1
    assert "paratrain: ranks 1, 2, 3 of 4: no such file: '/local/train_lmdb'\n" in texts(done)
    assert done.stderr.count("no such file") == 1


def test_a_bug_in_the_set_up_shows_its_traceback(run: Run) -> None:
    text = texts(run(2, "bad_input", "bug"))
    assert "paratrain: rank 1 of 2 on" in text
    assert text.count("Traceback (most recent call last)") == 1
    assert "IndexError: a bug in the set-up" in text


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("exception", "ZeroDivisionError: a bug in the script"),
        ("thread", "KeyError: 'missing'"),
        ("unhooked", "nobody catches this"),
    ],
)
def test_a_script_that_fails_ends_all(run: Run, kind: str, said: str) -> None:
    text = texts(run(2, "script", kind))
    assert said in text
    assert kind == "unhooked" or "paratrain: rank 1 of 2 on" in text
    assert text.count("Traceback (most recent call last)") == 1


def test_a_script_that_leaves_with_a_code_ends_all_with_it(run: Run) -> None:
    assert run(2, "script", "exit").returncode == 5


@pytest.mark.parametrize("kind", ["raised exit", "early end"])
def test_a_rank_that_leaves_in_silence_is_not_waited_for(run: Run, kind: str) -> None:
    text = texts(run(2, "script", kind))
    assert "paratrain: rank 0 of 2 on" in text
    assert "rank 1 has ended, while this rank waits for it" in text


@pytest.mark.parametrize("kind", ["good", "quiet thread"])
def test_a_script_that_ends_well(run: Run, kind: str) -> None:
    done = run(2, "script", kind)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["good"] * (2 if kind == "good" else 1)
    assert done.stderr == ""


SELF_LAUNCH = """
import sys
from paratrain.launch.self_launch import launch_ranks
launch_ranks(2, [sys.executable, *sys.argv[1:]])
"""


def self_launched(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SELF_LAUNCH, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ranks_that_we_start_ourselves(mpirun: str) -> None:
    """Output and exit code are the ranks'."""
    good = self_launched(RANKS, "objects")
    output, _ = good.communicate(timeout=60)
    assert good.returncode == 0
    assert sorted(output.splitlines()) == ["0 of 2: mpi", "1 of 2: mpi"]
    bad = self_launched(RANKS, "script", "exit")
    bad.communicate(timeout=60)
    assert bad.returncode == 5


def test_a_signal_to_ranks_that_we_started_ends_them(mpirun: str) -> None:
    sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    started = self_launched("-c", sleeper)
    assert started.stdout is not None
    processes = [int(started.stdout.readline()) for _ in range(2)]
    started.send_signal(signal.SIGTERM)
    started.communicate(timeout=END_LIMIT_S)
    assert started.returncode != 0
    deadline = time.monotonic() + END_LIMIT_S
    while any(Path(f"/proc/{process}").exists() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]
