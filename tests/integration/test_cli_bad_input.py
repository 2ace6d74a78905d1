"""Mistakes in what the command line is given: one clear message, an exit code, no traceback, no half-written file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import lmdb
import pytest

from paratrain.data import LmdbWriter
from paratrain.proto import Datum
from tests.integration.cli import SMALL_NET, error, write_solver
from tests.integration.cli import paratrain as run_process
from tests.integration.cli import paratrain_here as run
from tests.paths import GOLDEN


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def test_no_such_file(folder: Path) -> None:
    message = error(run_process(folder, "train", "none.prototxt"))
    assert "none.prototxt: no such file" in message
    assert str(folder) in message


def test_a_file_that_is_no_prototxt(folder: Path) -> None:
    shutil.copy(GOLDEN / "solvers" / "init.caffemodel", folder)
    assert "not a text file" in error(run(folder, "train", "init.caffemodel"))


def test_a_folder_given_as_a_solver(folder: Path) -> None:
    assert "this is a folder" in error(run(folder, "train", "mnist_train_lmdb"))


def test_an_unknown_field_is_placed(folder: Path) -> None:
    solver = write_solver(folder, "momentun: 0.9\n")
    message = error(run(folder, "train", solver))
    assert message.startswith("small.solver.prototxt:9:1: ")
    assert "'momentum'" in message


def test_a_net_that_is_missing(folder: Path) -> None:
    message = error(run_process(folder, "train", write_solver(folder, 'net: "models/none.prototxt"\n')))
    assert "'models/none.prototxt'" in message
    assert str(folder) in message


def test_an_unknown_layer_type(folder: Path) -> None:
    net = SMALL_NET.replace('type: "Pooling"', 'type: "Poolin"')
    message = error(run(folder, "train", write_solver(folder, net=net)))
    assert "'pool1'" in message
    assert "did you mean 'Pooling'" in message


def test_a_bottom_that_no_layer_makes(folder: Path) -> None:
    net = SMALL_NET.replace('bottom: "pool1"', 'bottom: "pool9"')
    message = error(run(folder, "train", write_solver(folder, net=net)))
    assert "'ip1'" in message
    assert "'pool9'" in message


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ('train_net: "x"\n', ["exactly one of", "net and train_net"]),
        ('lr_policy: "stairs"\n', ["unknown learning-rate policy 'stairs'", "fixed"]),
        ('lr_policy: "step"\n', ["gamma and stepsize"]),
        ('type: "SDG"\n', ["unknown solver type 'SDG'", "SGD"]),
        ("test_iter: 1\n", ["test_interval is 0"]),
        ('snapshot: 2\nsnapshot_prefix: "none/small"\n', ["'none/small'", "does not exist"]),
        ('snapshot_prefix: "none/small"\n', ["'none/small'", "does not exist"]),
    ],
)
def test_solvers_that_contradict_themselves(folder: Path, settings: str, parts: list[str]) -> None:
    message = error(run(folder, "train", write_solver(folder, settings)))
    for part in parts:
        assert part in message
    assert list(folder.glob("*_iter_*")) == []


def test_a_database_that_is_missing(folder: Path) -> None:
    (folder / "mnist_train_lmdb").unlink()
    message = error(run(folder, "train", write_solver(folder)))
    assert "mnist_train_lmdb" in message
    assert "'data'" in message


def test_a_database_that_is_none(folder: Path) -> None:
    (folder / "mnist_train_lmdb").unlink()
    (folder / "mnist_train_lmdb").mkdir()
    (folder / "mnist_train_lmdb" / "data.mdb").write_bytes(b"nothing of the kind" * 1000)
    assert "mnist_train_lmdb" in error(run(folder, "train", write_solver(folder)))


def test_a_database_without_records(folder: Path) -> None:
    (folder / "mnist_train_lmdb").unlink()
    lmdb.open(str(folder / "mnist_train_lmdb")).close()
    message = error(run(folder, "train", write_solver(folder)))
    assert "mnist_train_lmdb" in message
    assert "empty" in message or "no records" in message


def test_a_record_that_is_no_datum_is_named_by_its_key(folder: Path) -> None:
    (folder / "mnist_train_lmdb").unlink()
    with LmdbWriter(folder / "mnist_train_lmdb") as writer:
        for index in range(64):
            record = Datum(channels=1, height=28, width=28, data=bytes(784), label=1).SerializeToString()
            writer.put(b"%08d" % index, b"\xff\xffnot a record" if index == 40 else record)
    message = error(run_process(folder, "train", write_solver(folder)))
    assert "00000040" in message
    assert "mnist_train_lmdb" in message
    assert list(folder.glob("*_iter_*")) == []


def test_a_label_out_of_range(folder: Path) -> None:
    (folder / "mnist_train_lmdb").unlink()
    with LmdbWriter(folder / "mnist_train_lmdb") as writer:
        for index in range(64):
            label = 99 if index == 40 else 1
            record = Datum(channels=1, height=28, width=28, data=bytes(784), label=label)
            writer.put(b"%08d" % index, record.SerializeToString())
    message = error(run_process(folder, "train", write_solver(folder)))
    assert "99" in message
    assert "'loss'" in message


def test_weights_that_do_not_fit(folder: Path) -> None:
    shutil.copy(GOLDEN / "solvers" / "init.caffemodel", folder)
    net = SMALL_NET.replace("num_output: 32", "num_output: 16")
    message = error(run(folder, "train", write_solver(folder, net=net), "-weights", "init.caffemodel"))
    assert "'ip1'" in message
    assert "(16, 288)" in message
    assert "(32, 288)" in message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["-weights", "none.caffemodel"], ["none.caffemodel", "no such file"]),
        (["-weights", ""], ["-weights is empty"]),
        (["-weights", "sgd_iter_30.solverstate"], ["expected a NetParameter", "-snapshot sgd_iter_30.solverstate"]),
        (["-snapshot", "none.solverstate"], ["none.solverstate", "no such file"]),
        (["-snapshot", "sgd_iter_30.caffemodel"], ["expected a SolverState", "-weights sgd_iter_30.caffemodel"]),
        (["-snapshot", "adam_iter_30.solverstate"], ["12 history blobs", "another type of solver"]),
        (["-snapshot", "sgd_bn_iter_30.solverstate"], ["11 history blobs", "another net"]),
        (["-snapshot", "alone.solverstate"], ["'sgd_iter_30.caffemodel', which are not there"]),
        (["--metrics", "none/run.jsonl"], ["none/run.jsonl", "No such file or directory"]),
        (["-gpu", "7"], ["GPU"]),
        (["-gpu", "0,x"], ["GPU"]),
        (["--cpu", "-gpu", "all"], ["expected different numbers"]),
    ],
)
def test_arguments_that_cannot_be(folder: Path, arguments: list[str], parts: list[str]) -> None:
    for name in ("adam_iter_30.solverstate", "sgd_bn_iter_30.solverstate"):
        shutil.copy(GOLDEN / "solvers" / name, folder)
    source = "sgd_iter_30.solverstate"
    shutil.copy(
        GOLDEN / "solvers" / source, folder / ("alone.solverstate" if "alone.solverstate" in arguments else source)
    )
    if "alone.solverstate" not in arguments:
        shutil.copy(GOLDEN / "solvers" / "sgd_iter_30.caffemodel", folder)
    before = sorted(os.listdir(folder))
    message = error(run(folder, "train", write_solver(folder), *arguments))
    for part in parts:
        assert part in message
    assert sorted({*os.listdir(folder)} - {"small.solver.prototxt", "small.net.prototxt"}) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["frain"],
        ["train"],
        ["train", "a", "-solver", "b"],
        ["train", "a", "-weights", "b", "-snapshot", "c"],
        ["train", "a", "--no-such-flag"],
        ["test", "-model", "a"],
        ["test", "-weights", "a"],
        ["test", "-model", "a", "-weights", "b", "-iterations", "0"],
        ["time"],
        ["time", "-model", "a", "-phase", "BOTH"],
        ["-x"],
    ],
)
def test_commands_that_cannot_be_understood(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("usage: paratrain")
    assert "Traceback" not in done.stderr


def test_files_that_are_missing_when_a_net_is_scored_or_timed(folder: Path) -> None:
    write_solver(folder)
    assert "none.prototxt" in error(run(folder, "time", "-model", "none.prototxt"))
    message = error(run(folder, "test", "-model", "small.net.prototxt", "-weights", "none.caffemodel"))
    assert "none.caffemodel" in message
