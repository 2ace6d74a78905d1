"""Training under mpirun with a rank that dies, or does not come: the report, the exit code, and that nothing is left."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from pathlib import Path

import psutil

from tests.integration.cli import COMMAND, ENVIRONMENT, write_solver

# What the issue allows for a dead rank, and for the start of the processes on a busy machine.
_DEAD_S, _START_S = 10.0, 40.0
_NET = """
name: "watched"
layer { name: "noise" type: "DummyData" top: "x" top: "label"
  dummy_data_param { shape { dim: 4 dim: 10 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "trouble" type: "Python" bottom: "x" top: "y" python_param { module: "trouble" layer: "Trouble" } }
layer { name: "score" type: "InnerProduct" bottom: "y" top: "score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
_TROUBLE = """
import os, pathlib, time
import paratrain as caffe

class Trouble(caffe.Layer):
    def setup(self, bottom, top):
        self.count = 0

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
        if caffe.solver_rank() == 1 and self.count == 12:
            pathlib.Path("begun").write_text(f"{time.time()} {os.getpid()}")
            [LINE]
        self.count += 1

    def backward(self, top, propagate_down, bottom):
        pass
"""


def run_into(
    folder: Path, mpirun: str, line: str, *options: str
) -> tuple[subprocess.CompletedProcess[str], float, int]:
    """Train on 3 ranks, of which one executes ``line`` in iteration 12.

    Return what came, how many seconds after that line, and the process that executed it.
    """
    (folder / "trouble.py").write_text(_TROUBLE.replace("[LINE]", line))
    solver = write_solver(folder, "max_iter: 1000\nsnapshot: 5\n", net=_NET)
    command = [mpirun, "-n", "3", *COMMAND, "train", solver, "--allow-python", *options]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=_START_S + _DEAD_S, check=False
    )
    begun, process = (folder / "begun").read_text().split()
    return done, time.time() - float(begun), int(process)


def left_behind(folder: Path) -> list[str]:
    """The processes that still work in ``folder``, as ranks and their helpers do, after a second to go."""
    until = time.monotonic() + 1.0
    while (found := _working(folder)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _working(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_a_killed_rank_is_reported_with_its_place(tmp_path: Path, mpirun: str) -> None:
    done, seconds, process = run_into(tmp_path, mpirun, "os.kill(os.getpid(), 9)")
    assert done.returncode != 0
    assert seconds < _DEAD_S
    place = f"paratrain: rank 1 of 3 on {socket.gethostname()}, at iteration 12, forward of 'trouble': "
    # mpirun may have taken notice of it first, and then nobody else can ask how it ended.
    ways = [f"{place}{way} (process {process})\n" for way in ("killed by SIGKILL", "the process has vanished")]
    assert any(way in done.stderr for way in ways), done.stderr
    assert re.search(r"\n  The newest snapshot is small_iter_(5|10); --resume auto goes on from it.\n", done.stderr)
    assert left_behind(tmp_path) == []


def test_a_rank_that_does_not_come_is_waited_for_by_name_and_then_no_more(tmp_path: Path, mpirun: str) -> None:
    limits = ("--stall-warn", "1", "--stall-abort", "2")
    done, seconds, process = run_into(tmp_path, mpirun, "time.sleep(1000)", *limits)
    assert done.returncode == 75
    assert 2 < seconds < 2 + _DEAD_S
    place = f"rank 1 on {socket.gethostname()} (process {process}): iteration 12, forward of 'trouble', for "
    assert f"ranks 0 and 2 of 3 have waited 2 s for {place}" in done.stderr.replace("waited 1 s", "waited 2 s")
    [report] = [line for line in done.stderr.splitlines() if line.startswith("paratrain: ")]
    assert "(--stall-abort 2)" in report
    assert place in report
    assert "time.sleep(1000)" in done.stderr.partition(report)[2]
    assert left_behind(tmp_path) == []
