"""Going on from a snapshot, and which snapshots are kept, as the command line has it."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from paratrain.errors import SnapshotError
from paratrain.proto import NetParameter, read_binary
from paratrain.snapshot import Metric, SnapshotCopy, SnapshotKeeper
from paratrain.solvers import Solver
from tests.integration.cli import ENVIRONMENT, SMALL_NET, error, messages, paratrain, write_solver
from tests.integration.cli import paratrain_here as run

TEST = "test_iter: 2\ntest_interval: 2\n"


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def kept(folder: Path) -> dict[int, int]:
    """How many files there are of the snapshot of each iteration."""
    found: dict[int, int] = {}
    for path in folder.glob("small_iter_*"):
        iteration = int(path.name.split(".")[0].rsplit("_", 1)[1])
        found[iteration] = found.get(iteration, 0) + 1
    return dict(sorted(found.items()))


def test_auto_starts_from_the_beginning_or_goes_on(folder: Path) -> None:
    first = run(folder, "train", write_solver(folder, "max_iter: 3\n"), "--resume", "auto")
    assert "There is no good snapshot of 'small' to resume: starting from the beginning" in messages(first)
    longer = write_solver(folder, "max_iter: 6\nsnapshot: 2\n")
    (folder / "small_iter_5.solverstate").touch()  # as if it had been cut short
    done = run(folder, "train", longer, "--resume", "auto", "--metrics", "run.jsonl")
    assert "Resuming from small_iter_3.solverstate" in messages(done)
    assert any("Passing over small_iter_5.solverstate" in line for line in messages(done))
    assert kept(folder) == {3: 3, 4: 3, 5: 1, 6: 3}
    again = run(folder, "train", longer, "--resume", "auto")
    assert "Resuming from small_iter_6.solverstate" in messages(again)
    straight = folder / "straight"
    straight.mkdir()
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (straight / name).symlink_to(folder / name)
    assert run(straight, "train", write_solver(straight, "max_iter: 6\n")).returncode == 0
    for kind in ("caffemodel", "solverstate"):
        assert (straight / f"small_iter_6.{kind}").read_bytes() == (folder / f"small_iter_6.{kind}").read_bytes()


def test_auto_goes_with_weights_to_start_from(folder: Path) -> None:
    solver = write_solver(folder, "max_iter: 2\n")
    run(folder, "train", solver)
    shutil.move(folder / "small_iter_2.caffemodel", folder / "start.caffemodel")
    done = run(folder, "train", solver, "--resume", "auto", "-weights", "start.caffemodel")
    assert "Finetuning from start.caffemodel" in messages(done)
    assert any("Passing over" in line for line in messages(done))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--resume", "a", "-snapshot", "b"],
        ["--resume", "a", "-weights", "b"],
        ["--keep", "0"],
        ["--keep-best", "thing"],
    ],
)
def test_arguments_that_contradict_each_other(folder: Path, arguments: list[str]) -> None:
    done = run(folder, "train", write_solver(folder), *arguments)
    assert done.returncode == 2
    assert list(folder.glob("*_iter_*")) == []


def test_hdf5_snapshots_go_on_in_a_moved_folder(folder: Path) -> None:
    settings = "snapshot_format: HDF5\nsnapshot: 2\nmomentum: 0.9\n"
    solver = write_solver(folder, settings)
    done = run(folder, "train", solver)
    assert "Snapshotting to HDF5 file small_iter_2.caffemodel.h5" in messages(done)
    assert "Snapshotting solver state to HDF5 file small_iter_2.solverstate.h5" in messages(done)
    assert kept(folder) == {2: 3, 4: 3}
    expected = {path.name: path.read_bytes() for path in folder.glob("small_iter_4.*")}
    (folder / "moved").mkdir()
    for path in folder.glob("small_iter_*"):
        path.rename(folder / "moved" / path.name)
    assert run(folder, "train", solver, "--resume", "moved/small_iter_2.solverstate.h5").returncode == 0
    assert {path.name: path.read_bytes() for path in folder.glob("small_iter_4.*")} == expected


def test_the_last_and_the_best_are_kept(folder: Path) -> None:
    solver = write_solver(folder, f"{TEST}max_iter: 10\nsnapshot: 3\nbase_lr: 0.4\n")
    done = run(folder, "train", solver, "--keep", "1", "--keep-best", "accuracy", "--metrics", "run.jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    scores = {line["iteration"]: line["outputs"]["accuracy"] for line in lines if "outputs" in line}
    del scores[0]  # the score of what training began with
    best = max(scores, key=lambda iteration: (scores[iteration], -iteration))
    assert kept(folder) == dict(sorted({best: 3, 10: 3}.items()))
    if best != 10:  # the last snapshot is older than its own score
        training = json.loads((folder / "small_iter_10.trainstate").read_text())
        assert training["best"]["iteration"] == best
        assert training["best"]["score"] == scores[best]


def test_the_best_snapshot_goes_on_as_any_other(folder: Path) -> None:
    """It is begun after the test that shows it, and holds what was before."""
    net = SMALL_NET.replace("transform_param {", "transform_param { mirror: true", 1)
    run(folder, "train", write_solver(folder, f"{TEST}max_iter: 7\n", net=net), "--keep-best", "min:loss")
    assert set(kept(folder)) >= {7}
    best = min(kept(folder))
    assert best < 7
    expected = (folder / "small_iter_7.caffemodel").read_bytes()
    assert json.loads((folder / f"small_iter_{best}.trainstate").read_text())["tests"] == [best - 0]
    done = run(folder, "train", "small.solver.prototxt", "-snapshot", f"small_iter_{best}.solverstate")
    assert done.returncode == 0, done.stderr
    assert (folder / "small_iter_7.caffemodel").read_bytes() == expected


def test_a_score_that_no_test_net_has(folder: Path) -> None:
    message = error(run(folder, "train", write_solver(folder, TEST), "--keep-best", "max:precision"))
    assert "no test net has an output 'precision'; their outputs are accuracy, loss" in message
    message = error(run(folder, "train", write_solver(folder), "--keep-best", "accuracy"))
    assert "the solver has no test net" in message


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("caffemodel", ["small_iter_4.caffemodel: is not what was written at iteration 4", "go back to an earlier"]),
        ("solverstate", ["small_iter_4.solverstate: is not what was written at iteration 4"]),
    ],
)
def test_files_that_do_not_belong_together(folder: Path, kind: str, parts: list[str]) -> None:
    solver = write_solver(folder, "snapshot: 2\n")
    run(folder, "train", solver)
    path = folder / f"small_iter_4.{kind}"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1  # within the values
    path.write_bytes(data)
    message = error(run(folder, "train", solver, "-snapshot", "small_iter_4.solverstate"))
    for part in parts:
        assert part in message
    done = run(folder, "train", solver, "--resume", "auto")
    assert "Resuming from small_iter_2.solverstate" in messages(done)


def test_the_trainstate_left_out(folder: Path) -> None:
    """Then it is a state as Caffe's: the data stays where it is."""
    solver = write_solver(folder, "max_iter: 2\n")
    run(folder, "train", solver)
    (folder / "small_iter_2.trainstate").unlink()
    longer = write_solver(folder, "max_iter: 4\n")
    done = run(folder, "train", longer, "--resume", "small_iter_2.solverstate")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "small_iter_4.trainstate").read_text())["data"][0]["next_batch"] == 2


def solver_of(folder: Path, settings: str, monkeypatch: pytest.MonkeyPatch) -> Solver:
    import paratrain as caffe

    monkeypatch.chdir(folder)
    return caffe.get_solver(write_solver(folder, settings))


def test_training_goes_on_while_a_snapshot_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, write_model = threading.Event(), SnapshotCopy.write_model

    def slow(copy: SnapshotCopy, names: object) -> None:
        assert may_write.wait(60)
        write_model(copy, names)  # type: ignore[arg-type]

    monkeypatch.setattr(SnapshotCopy, "write_model", slow)
    solver = solver_of(folder, "snapshot: 2\n", monkeypatch)
    solver.step(2)
    weights = solver.net.to_proto()
    solver.step(1)
    assert solver.iter == 3
    assert kept(folder) == {}
    may_write.set()
    solver.step(1)  # the next snapshot waits for the one before
    assert kept(folder)[2] == 3
    solver.close()
    assert kept(folder) == {2: 3, 4: 3}
    assert read_binary("small_iter_2.caffemodel", NetParameter) == weights


def test_a_snapshot_that_fails_in_the_background(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = solver_of(folder, "snapshot: 2\n", monkeypatch)
    (folder / "small_iter_2.caffemodel").mkdir()
    solver.step(2)
    with pytest.raises(SnapshotError, match=r"small_iter_2.caffemodel: cannot be written"):
        for _ in range(100):
            solver.step(1)
    solver.close()


def test_a_failure_is_logged_where_another_error_ends_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    solver = solver_of(folder, "snapshot: 1\n", monkeypatch)
    (folder / "small_iter_1.caffemodel").mkdir()
    solver.step(1)
    with caplog.at_level(logging.ERROR):
        solver.close()
    assert "small_iter_1.caffemodel: cannot be written" in caplog.text
    with pytest.raises(SnapshotError, match=r"small_iter_1.caffemodel: cannot be written"):
        solver.keeper.wait()  # else it is raised by nothing, and this process ends with exit code 1


def test_a_failure_after_the_last_step_of_a_script(folder: Path) -> None:
    solver = write_solver(folder, 'snapshot: 3\nsnapshot_prefix: "gone/small"\n')
    (folder / "gone").mkdir()
    script = f"""
import shutil
import paratrain as caffe
solver = caffe.get_solver("{solver}")
solver.step(2)
shutil.rmtree("gone")
open("gone", "w").close()
solver.step(1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "gone/small_iter_3.caffemodel: cannot be written" in done.stderr


def test_a_best_score_does_not_wait_for_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, write_model = threading.Event(), SnapshotCopy.write_model

    def slow(copy: SnapshotCopy, names: object) -> None:
        assert copy.iteration == 1 or may_write.wait(60)
        write_model(copy, names)  # type: ignore[arg-type]

    monkeypatch.setattr(SnapshotCopy, "write_model", slow)
    solver = solver_of(folder, "snapshot: 2\n", monkeypatch)
    keeper = solver.keeper
    keeper.metric = Metric.parse("accuracy")
    solver.step(1)
    assert keeper.score(1, [{"accuracy": 0.1}])
    solver.snapshot()
    keeper.wait()
    assert kept(folder) == {1: 3}
    solver.step(1)
    assert not keeper.score(2, [{"accuracy": 0.2}])  # its snapshot is being written
    solver.step(1)
    assert kept(folder) == {1: 3}
    may_write.set()
    keeper.wait()
    assert kept(folder) == {2: 3}
    solver.close()


@pytest.mark.parametrize("options", [(), ("--keep-best", "accuracy")])
def test_a_folder_that_is_missing_is_found_before_training(folder: Path, options: tuple[str, ...]) -> None:
    solver = write_solver(folder, TEST + 'snapshot_prefix: "none/small"\nsnapshot_after_train: false\n')
    done = run(folder, "train", solver, *options)
    if options:
        assert "none: the folder for snapshots does not exist" in error(done)
        assert not any(line.startswith("Iteration") for line in messages(done))
    else:
        assert done.returncode == 0
        (warning,) = (line for line in messages(done) if "none: the folder for snapshots does not exist" in line)
        assert warning.startswith("A signal that asks for a snapshot, as SIGTERM does, would end the run: ")


def test_a_trainstate_given_as_weights(folder: Path) -> None:
    solver = write_solver(folder)
    run(folder, "train", solver)
    message = error(run(folder, "train", solver, "-weights", "small_iter_4.trainstate"))
    assert "give small_iter_4.caffemodel, which belongs to it" in message


def test_who_keeps_all_removes_nothing() -> None:
    assert (SnapshotKeeper("a").keep, SnapshotKeeper("a").metric) == (None, None)


DUMMY_NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y"
  dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } data_filler { type: "gaussian" std: 1000 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_parameters_that_are_spoilt_end_all_ranks_before_they_are_written(
    tmp_path: Path, mpirun: str, ranks: int
) -> None:
    """The update of iteration 2 is too large: the root finds that alone, when it is about to write the snapshot."""
    policy = 'lr_policy: "step"\nstepsize: 2\ngamma: 3e38\nbase_lr: 0.01\nsnapshot: 1\nmax_iter: 10\n'
    solver = write_solver(tmp_path, policy, net=DUMMY_NET)
    done = paratrain(tmp_path, "train", solver, launcher=(mpirun, "-n", "2") if ranks > 1 else ())
    assert done.returncode == 1
    [message] = [line for line in done.stderr.splitlines() if line.startswith("paratrain: ")]
    assert (
        "iteration 3: parameter ip[0]: 6 of 6 values are not finite after the update. No snapshot is written" in message
    )
    assert "Warning" not in done.stderr
    assert kept(tmp_path) == {1: 3, 2: 3}
