"""Starting, watching and starting again, with plain processes that fail as they are told to; no MPI."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from paratrain.launch import launch
from paratrain.launch.job import Asked, processes_of, run_job
from paratrain.launch.launch import Job, watch
from paratrain.launch.reports import VARIABLE
from paratrain.launch.restarting import Ranks
from paratrain.launch.train_command import TrainCommand
from tests.integration.cli import write_solver

# Writes its own command, a snapshot of 10 iterations more, and ends as the line of "plan" that belongs to this start says.
FAKE = """
import hashlib, json, os, signal, sys
from pathlib import Path
starts = Path("starts").read_text().splitlines() if Path("starts").exists() else []
Path("starts").write_text("\\n".join([*starts, " ".join(sys.argv[1:])]) + "\\n")
plan = Path("plan").read_text().splitlines()[len(starts)].split()
resumed = [word.rpartition("_")[2].partition(".")[0] for word in sys.argv if word.startswith("--resume=")]
iteration = int(resumed[0]) if resumed else 0
print(f"paratrain-launch: rank 0 is process {os.getpid()} on here", file=sys.stderr, flush=True)
print(f"paratrain-launch: training begins at iteration {iteration}", file=sys.stderr, flush=True)
for word in plan:
    if word == "snapshot":
        iteration += 10
        state = Path(f"small_iter_{iteration}.solverstate")
        state.write_text("state")
        files = {state.name: {"size_bytes": 5, "sha256": hashlib.sha256(b"state").hexdigest()}}
        about = {"format": "paratrain.trainstate", "version": 1, "best": None, "files": files}
        numbers = {"iteration": iteration, "seed": 1, "ranks": 4, "iter_size": 1, "data": []}
        Path(f"small_iter_{iteration}.trainstate").write_text(json.dumps(about | numbers))
    elif word.startswith("exit"):
        sys.exit(int(word[4:]))
    elif word.startswith("error"):
        print(f"paratrain: rank 0 of 4 on here: {word}", file=sys.stderr)
        sys.exit(1)
    elif word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


class FakeJob(Job):
    """Starts plain Python instead of mpirun."""

    def __init__(self, program: str, grace_s: float = 5.0) -> None:
        super().__init__(argparse.Namespace(mpirun_options=[], grace=grace_s, mpirun=None), ())
        self._program = program

    def command(self, ranks: Ranks, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        return [sys.executable, "-c", self._program, str(ranks.count), *words]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "list_segments", lambda: set())
    monkeypatch.setattr(launch, "remove_leftovers", lambda before: (0, 0))
    return tmp_path


def train_command(folder: Path, *options: str, settings: str = "") -> TrainCommand:
    words = ["train", write_solver(folder, settings), *options]
    return TrainCommand(words, launch._parse(words), 4)


def run(folder: Path, plan: str, *options: str, limit: int = 3, least: int = 1) -> tuple[int, list[str]]:
    """Run the fake job; return the exit code and the words of each start."""
    (folder / "plan").write_text(textwrap.dedent(plan))
    code = watch(
        FakeJob(FAKE), train_command(folder, *options), Ranks(4), limit=limit, least_count=least, first_pause_s=0.0
    )
    return code, (folder / "starts").read_text().splitlines()


FIRST = "4 train small.solver.prototxt"


def test_it_goes_on_from_the_newest_snapshot(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "paratrain")
    code, starts = run(folder, "exit5\nsnapshot snapshot killed\nerror7\nsnapshot exit0\n", "-weights=w.caffemodel")
    resumed = f"{FIRST} --resume=small_iter_20.solverstate"
    assert (code, starts) == (0, [f"{FIRST} -weights=w.caffemodel"] * 2 + [resumed] * 2)
    told = [record.getMessage() for record in caplog.records if record.name == "paratrain.launch.launch"]
    restarts = [line for line in told if line.startswith("Restart ")]
    assert restarts == [
        "Restart 1 of 3: 4 ranks, from where the run began, since it has written no good snapshot yet",
        "Restart 1 of 3: 4 ranks, going on from small_iter_20.solverstate (iteration 20)",
        "Restart 2 of 3: 4 ranks, going on from small_iter_20.solverstate (iteration 20)",
    ]
    ends = [line.partition(" s: ")[2] for line in told if line.startswith("The job of 4 ranks has ended")]
    assert ends == ["exit code 5", "exit code 137", "exit code 1; rank 0 of 4 on here: error7"]


def test_the_exit_code_of_the_last_failure(folder: Path) -> None:
    assert run(folder, "exit5\nexit6\nexit7\nexit8\nexit0\n", limit=2)[0] == 7
    assert len((folder / "starts").read_text().splitlines()) == 3


def test_the_same_error_twice_without_progress_ends_it(folder: Path) -> None:
    code, starts = run(folder, "snapshot error1\nerror1\nexit0\n")
    assert (code, len(starts)) == (1, 2)


def test_iterations_are_counted_over_all_starts(folder: Path) -> None:
    code, starts = run(folder, "snapshot exit5\nsnapshot exit5\n", "-iterations", "20")
    assert code == 0  # after the second snapshot nothing is left to do
    assert starts == [f"{FIRST} -iterations 20", f"{FIRST} -iterations=10 --resume=small_iter_10.solverstate"]


def test_older_snapshots_are_not_taken_for_this_runs(folder: Path) -> None:
    (folder / "plan").write_text("snapshot exit0\n")
    assert run(folder, "snapshot exit0\n")[0] == 0
    (folder / "starts").unlink()
    code, starts = run(folder, "exit5\nexit0\n")
    assert (code, starts) == (0, [FIRST, FIRST])


def test_fewer_ranks_keep_the_effective_batch(folder: Path) -> None:
    """SMALL_NET's batch is 32: 4 ranks of it are shared by 2, and not by 3 with whole batches."""
    killed = "print('=   RANK 3 PID 1 RUNNING AT here\\n=   KILLED BY SIGNAL: 9 (Killed)', flush=True)\n"
    (folder / "plan").write_text("exit9\nexit9\nexit0\n")
    job = FakeJob(
        FAKE.replace(
            '    elif word.startswith("exit"):\n',
            f'    elif word.startswith("exit"):\n        if word != "exit0":\n            {killed}',
        )
    )
    command = train_command(folder)
    assert command.problem_with(2) is None
    assert "cannot be shared evenly by 3 ranks" in str(command.problem_with(3))
    assert watch(job, command, Ranks(4), limit=3, least_count=1, first_pause_s=0.0) == 0
    starts = (folder / "starts").read_text().splitlines()
    assert starts == [FIRST, FIRST, "2 train small.solver.prototxt --batch-ranks=4"]


STUBBORN = """
import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
child = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
open("ready", "w").close()
while True:
    time.sleep(60)
"""


def when(path: Path, do: Callable[[], None]) -> threading.Thread:
    """Do something in a thread once a file is there."""

    def wait() -> None:
        until = time.monotonic() + 30
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def of_this_process() -> list[int]:
    """Processes that any job of this process has left."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if f"{VARIABLE}={os.getpid()}-".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_what_ignores_signals_is_killed_and_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.launch.job._MPIRUN_KILLS_S", 0.3)
    monkeypatch.setattr("paratrain.launch.job._ENDING_S", 0.3)
    thread = when(folder / "ready", lambda: os.kill(os.getpid(), signal.SIGTERM))
    code = watch(FakeJob(STUBBORN, 0.2), train_command(folder), Ranks(4), limit=3, least_count=1)
    thread.join()
    assert code == 128 + signal.SIGTERM
    assert of_this_process() == []


def test_what_mpirun_leaves_behind_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.launch.job._ENDING_S", 0.3)
    left = [sys.executable, "-c", STUBBORN.replace("while True:\n    time.sleep(60)", "os.kill(os.getpid(), 9)")]
    with Asked() as asked:
        end = run_job(left, os.environ, asked, family=None, grace_s=1.0)
    assert end.code == 137
    assert of_this_process() == []


def test_output_is_shown_line_by_line_as_it_comes(capfd: pytest.CaptureFixture[str]) -> None:
    report = "print('paratrain-launch: rank 0 is process 1 on a', file=sys.stderr)"
    program = f"import sys; print('one'); print('two', end=''); {report}"
    with Asked() as asked:
        end = run_job([sys.executable, "-c", program], os.environ, asked, family=None, grace_s=1.0)
    shown = capfd.readouterr()
    assert (end.is_good, list(end.reports.ranks)) == (True, [0])
    assert shown.out.split() == ["one", "two"]
    assert shown.err == ""
    assert processes_of("no such job") == []
