"""``--verify-every`` and ``--timeline`` as a user gives them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.integration.cli import SMALL_NET, error, messages, paratrain, paratrain_here, write_solver
from tests.integration.test_cli_signals import ENDLESS, rank_processes, rest_of, training

# Its parameter, whose gradient is zero, changes on rank 1.
SPOILING_NET = (
    SMALL_NET
    + """
layer { name: "spoil" type: "Python" param { decay_mult: 0 } include { phase: TRAIN } bottom: "label"
  python_param { module: "spoil" layer: "Spoil" } }
"""
)
SPOILING_LAYER = """
import paratrain as caffe
class Spoil(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(2, 3)
        self.passes = 0
    def reshape(self, bottom, top): pass
    def forward(self, bottom, top):
        self.passes += 1
        if self.passes == 3 and caffe.solver_rank() == 1:
            self.blobs[0].data[1, 2] = 0.125
    def backward(self, top, propagate_down, bottom): pass
"""


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def test_a_timeline_of_two_ranks_that_verify_is_there_though_they_are_stopped(folder: Path, mpirun: str) -> None:
    solver = write_solver(folder, ENDLESS + "snapshot_after_train: false\n")
    options = "--timeline", "timeline.json", "--timeline-steps", "1:3", "--verify-every", "2"
    with training(folder, solver, *options, launcher=(mpirun, "-n", "2"), until="Iteration 6 (") as process:
        for rank in rank_processes(process):
            os.kill(rank, signal.SIGINT)
        lines, code = rest_of(process)
    assert code == 0, lines
    assert "Wrote the timeline of 2 ranks to timeline.json" in lines
    found = json.loads((folder / "timeline.json").read_text())
    assert found["otherData"]["clock_error_us"] == {"rank 0": 0, "rank 1": 0}
    for rank in range(2):
        names = [event["name"] for event in found["traceEvents"] if event["pid"] == rank and event["ph"] == "X"]
        assert [name for name in names if name.startswith("iteration")] == ["iteration 1", "iteration 2", "iteration 3"]
        assert names.count("data data") == names.count("forward conv1") == names.count("backward conv1") == 3
        assert names.count("sum 0") == names.count("spread 0") == 3
        assert names.count("verify") == 2  # after 2 and after 4 iterations


def test_a_parameter_that_differs_ends_the_run_and_is_named(folder: Path, mpirun: str) -> None:
    (folder / "spoil.py").write_text(SPOILING_LAYER)
    solver = write_solver(folder, "max_iter: 12\nsnapshot: 4\n", net=SPOILING_NET)
    options = "--allow-python", "--exchange", "mpi", "--verify-every", "4", "--timeline", "timeline.json"
    done = paratrain(folder, "train", solver, *options, launcher=(mpirun, "-n", "2"))
    assert error(done).startswith(
        "after 4 iterations the ranks are not the same: parameter spoil[0] (layer 'spoil', blob 0) is the first that "
        "differs; its first value that does is 5, at [1, 2] of (2, 3): 0 on rank 0; 0.125 on rank 1. Training stops here"
    )
    assert not list(folder.glob("*.solverstate"))  # what is spoilt is not written
    assert "Wrote the timeline of 2 ranks to timeline.json" in messages(done)


def test_what_cannot_be_is_said_before_training(folder: Path) -> None:
    solver = write_solver(folder)
    assert "none/t.json: the folder for the timeline does not exist" in error(
        paratrain_here(folder, "train", solver, "--timeline", "none/t.json")
    )
    for arguments, part in (
        (("--timeline-steps", "3:4"), "give --timeline FILE as well"),
        (("--timeline", "t.json", "--timeline-steps", "3"), "is not like 100:20"),
        (("--timeline", "t.json", "--timeline-steps", "3:0"), "is not like 100:20"),
        (("--verify-every", "0"), "0 is not above 0"),
    ):
        done = paratrain_here(folder, "train", solver, *arguments)
        assert (done.returncode, part in done.stderr) == (2, True), done.stderr
    assert not (folder / "t.json").exists()
