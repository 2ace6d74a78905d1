"""The command line on several ranks."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from paratrain.data import LmdbWriter
from paratrain.proto import Datum, NetParameter, blob_to_array, read_binary
from tests.integration.cli import SMALL_NET, error, figures, messages, paratrain, write_solver


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def shown_losses(lines: list[str]) -> list[float]:
    return [float(line.rsplit(" ", 1)[1]) for line in lines if " iters), loss = " in line]


def test_two_ranks_started_by_mpirun_or_by_the_command_itself(folder: Path, mpirun: str) -> None:
    """Both are the same run, bit for bit, and follow one rank with batches twice as large."""
    settings = "display: 1\ntest_iter: 2\ntest_interval: 4\n"
    half = SMALL_NET.replace("batch_size: 32", "batch_size: 16")
    one = write_solver(folder, settings, name="one")
    by_mpirun = write_solver(folder, settings, net=half, name="by_mpirun")
    by_itself = write_solver(folder, settings, net=half, name="by_itself")
    runs = [
        paratrain(folder, "train", one),
        paratrain(folder, "train", by_mpirun, "--metrics", "run.jsonl", launcher=(mpirun, "-n", "2")),
        paratrain(folder, "train", "--cpu", "-gpu", "0,1", by_itself),
    ]
    for done in runs:
        assert done.returncode == 0, done.stderr
        assert messages(done).count("Optimization Done.") == 2
    losses = [shown_losses(messages(done)) for done in runs]
    assert len(losses[0]) == 4
    assert losses[1] == losses[2]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert "Effective batch: 32 images = batch_size 16 x iter_size 1 x 2 ranks" in messages(runs[1])
    assert [line["iteration"] for line in figures(folder / "run.jsonl")] == [0, 0, 1, 2, 3, 4]
    models = [read_binary(folder / f"{name}_iter_4.caffemodel", NetParameter) for name in ("by_mpirun", "by_itself")]
    values = [[blob_to_array(blob).tobytes() for layer in model.layer for blob in layer.blobs] for model in models]
    assert values[0] == values[1]
    assert len(values[0]) == 6


def test_a_list_of_gpus_that_is_not_the_launchers_count_is_remarked_on(folder: Path, mpirun: str) -> None:
    options = "--cpu", "-gpu", "0,1,2", "--exchange", "sharded", "--roots", "1"
    done = paratrain(folder, "train", write_solver(folder), *options, launcher=(mpirun, "-n", "2"))
    assert done.returncode == 0, done.stderr
    [exchange] = [line for line in messages(done) if line.startswith("Exchange: ")]
    assert exchange.startswith("Exchange: sharded, through shared memory, the root updates, in ")
    warnings = [line for line in done.stderr.splitlines() if line.startswith("W")]
    assert len(warnings) == 1
    assert "-gpu 0,1,2 asks for 3 ranks, and the launcher has started 2" in warnings[0]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "none.prototxt"], "none.prototxt: no such file"),
        (["train", "small.solver.prototxt", "-snapshot", "none.solverstate"], "none.solverstate: no such file"),
        (["test", "-model", "small.net.prototxt", "-weights", "x"], "x: no such file"),
    ],
)
def test_what_all_ranks_find_is_said_once(folder: Path, mpirun: str, arguments: list[str], part: str) -> None:
    write_solver(folder)
    done = paratrain(folder, *arguments, launcher=(mpirun, "-n", "2"))
    assert part in error(done)
    assert not re.search(r"rank \d of 2", done.stderr)


def test_what_only_the_root_finds_ends_all(folder: Path, mpirun: str) -> None:
    done = paratrain(folder, "train", write_solver(folder), "--metrics", "none/x", launcher=(mpirun, "-n", "2"))
    message = error(done)
    assert message.startswith("rank 0 of 2 on ")
    assert "none/x" in message


def test_labels_out_of_range_end_all_ranks(folder: Path, mpirun: str) -> None:
    few = SMALL_NET.replace("num_output: 10", "num_output: 2")
    done = paratrain(folder, "train", write_solver(folder, net=few), launcher=(mpirun, "-n", "2"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "'loss'" in done.stderr


def test_a_record_that_one_rank_cannot_read_ends_all_and_names_rank_and_key(folder: Path, mpirun: str) -> None:
    (folder / "mnist_train_lmdb").unlink()
    with LmdbWriter(folder / "mnist_train_lmdb") as writer:
        for index in range(128):
            record = Datum(channels=1, height=28, width=28, data=bytes(784), label=1).SerializeToString()
            writer.put(b"%08d" % index, b"\xff\xffnot a record" if index == 101 else record)
    begin = time.monotonic()
    done = paratrain(folder, "train", write_solver(folder), launcher=(mpirun, "-n", "2"))
    # Starting takes a part of this; ranks that were left waiting would stay for ever.
    assert time.monotonic() - begin < 30
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    [said] = [line for line in done.stderr.splitlines() if line.startswith("paratrain: ")]
    assert said.startswith("paratrain: rank 1 of 2 on ")  # records 1, 3, 5 ... are rank 1's
    assert "00000101" in said
