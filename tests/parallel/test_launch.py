"""`paratrain launch` with real ranks: one is killed, and the run ends with the bytes of one that was left alone."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from paratrain.launch.leftovers import FOLDER, list_segments
from paratrain.launch.self_launch import mpirun_family
from tests.integration.cli import SMALL_NET, messages, paratrain, write_solver

# Kills rank 1 in its eighth forward, in the first start only.
KILLER = """
import os, pathlib, signal
class Killer:
    forwards = 0
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top):
        self.forwards += 1
        if self.rank == 1 and self.forwards == 8 and not pathlib.Path("was-killed").exists():
            pathlib.Path("was-killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    def backward(self, top, propagate_down, bottom): pass
"""
LAYER = """
layer { name: "killer" type: "Python" bottom: "label" top: "nothing" include { phase: TRAIN }
  python_param { module: "killer" layer: "Killer" } }
"""
SETTINGS = 'type: "Adam"\nmomentum: 0.9\nmomentum2: 0.999\nmax_iter: 11\nsnapshot: 3\n'


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    return make_folder(tmp_path / "disturbed", mnist_folder)


def make_folder(folder: Path, mnist_folder: Path) -> Path:
    folder.mkdir()
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (folder / name).symlink_to(mnist_folder / name)
    (folder / "killer.py").write_text(KILLER)
    write_solver(folder, SETTINGS, net=SMALL_NET + LAYER)
    return folder


def sums(folder: Path) -> list[str]:
    files = [folder / f"small_iter_11.{kind}" for kind in ("caffemodel", "solverstate")]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes that work in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and Path(os.readlink(process / "cwd")) == folder:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_a_killed_rank_costs_nothing_but_time(folder: Path, mnist_folder: Path, mpirun: str) -> None:
    words = ["train", "small.solver.prototxt", "--allow-python"]
    before = list_segments()
    disturbed = paratrain(folder, "launch", "-n", "2", "--restarts", "1", *words, "--keep", "2")
    assert disturbed.returncode == 0, disturbed.stderr
    told = messages(disturbed)
    ended = next(line for line in told if line.startswith("The job of 2 ranks has ended after "))
    assert re.search(r"rank 1 (of 2 )?on .*(SIGKILL)", ended), ended
    restart = next(line for line in told if line.startswith("Restart "))
    assert re.fullmatch(
        r"Restart 1 of 1: 2 ranks, going on from small_iter_[36]\.solverstate \(iteration [36]\)", restart
    )
    assert "paratrain-launch" not in disturbed.stderr + disturbed.stdout
    assert processes_in(folder) == []
    if mpirun_family(Path(mpirun)) == "mpich" and FOLDER.is_dir():  # which leaves some behind, if it uses any
        removed = [line for line in told if line.startswith("Removed ")]
        assert removed or list_segments() <= before, told
    assert (folder / "was-killed").exists()
    straight = make_folder(folder.with_name("straight"), mnist_folder)
    (straight / "was-killed").touch()
    done = paratrain(straight, *words, launcher=(mpirun, "-n", "2"))
    assert done.returncode == 0, done.stderr
    assert sums(folder) == sums(straight)


def test_an_error_in_the_files_is_told_once_and_not_tried_again(folder: Path) -> None:
    solver = write_solver(folder, "max_iter: 3\n", net=SMALL_NET.replace("mnist_train_lmdb", "missing_lmdb"))
    done = paratrain(folder, "launch", "-n", "1", "--restarts", "3", "train", solver)
    assert done.returncode == 1
    told = messages(done)
    assert sum("missing_lmdb" in line for line in told if line.startswith("paratrain: ")) == 1
    assert any("it ended with an error before training, which a restart does not mend" in line for line in told)
    assert sum(line.startswith("Starting 1 rank: ") for line in told) == 1
