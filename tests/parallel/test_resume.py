"""Stopping and going on is the same, bit for bit, as never having stopped."""

from __future__ import annotations

import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.integration.cli import write_solver
from tests.parallel.resuming import make_folder, shown_losses, shown_scores, train, write_run

LAST = 12


@pytest.mark.parametrize(
    ("ranks", "exchange"), [(1, "tree"), (2, "tree"), (3, "tree"), (3, "auto"), (2, "ring"), (2, "mpi")]
)
def test_stop_and_resume_is_the_uninterrupted_run(
    ranks: int, exchange: str, mnist_folder: Path, tmp_path: Path, mpirun: str
) -> None:
    stop = random.randrange(1, LAST)
    settings = "iter_size: 2\ndisplay: 1\ntest_iter: 3\ntest_interval: 4\n"
    straight = make_folder(tmp_path / "straight", mnist_folder)
    write_run(straight, 5, f"{settings}max_iter: {LAST}\n")
    expected = train(straight, "--exchange", exchange, mpirun=mpirun, ranks=ranks)
    stopped = make_folder(tmp_path / "stopped", mnist_folder)
    losses, scores = dict[int, float](), dict[str, list[str]]()
    for last in (stop, LAST):
        write_run(stopped, 5, f"{settings}max_iter: {last}\n")
        log = train(stopped, "--exchange", exchange, "--resume", "auto", mpirun=mpirun, ranks=ranks)
        losses |= shown_losses(log)
        scores |= shown_scores(log)
    assert losses == shown_losses(expected), f"stopped at {stop}"
    assert scores == shown_scores(expected), f"stopped at {stop}"
    for kind in ("caffemodel", "solverstate"):
        name = f"run_iter_{LAST}.{kind}"
        assert (stopped / name).read_bytes() == (straight / name).read_bytes(), f"stopped at {stop}"


SEQUENCES = """
layer { name: "rows" type: "HDF5Data" top: "x" top: "cont" top: "y" hdf5_data_param { source: "rows.txt" batch_size: 3 } }
layer { name: "memory" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
  recurrent_param { num_output: 4 weight_filler { type: "uniform" min: -0.5 max: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "h" bottom: "y" top: "loss" }
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_lstm_goes_on_in_the_middle_of_its_sequences(ranks: int, tmp_path: Path, mpirun: str) -> None:
    """Five streams whose sequences go on from batch to batch, and begin anew now and then."""
    random = np.random.default_rng(5)
    for folder in ("straight", "stopped"):
        (tmp_path / folder).mkdir()
        with h5py.File(tmp_path / folder / "rows.h5", "w") as file:
            file["x"] = random.standard_normal((41, 5, 6), np.float32)
            file["cont"] = (random.random((41, 5)) < 0.9).astype(np.float32)
            file["y"] = random.standard_normal((41, 5, 4), np.float32)
        random = np.random.default_rng(5)
        (tmp_path / folder / "rows.txt").write_text("rows.h5\n")
        for last in (5, LAST) if folder == "stopped" else (LAST,):
            write_solver(tmp_path / folder, f"momentum: 0.9\nmax_iter: {last}\n", net=SEQUENCES, name="run")
            train(tmp_path / folder, "--resume", "auto", mpirun=mpirun, ranks=ranks)
    for kind in ("caffemodel", "solverstate", "carried.npz"):
        name = f"run_iter_{LAST}.{kind}"
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), kind


def test_a_seed_that_nobody_chose_goes_on(mnist_folder: Path, tmp_path: Path) -> None:
    """The run is stopped and resumed twice from the same snapshot: both go on alike."""
    folder = make_folder(tmp_path / "run", mnist_folder)
    write_run(folder, 5, "random_seed: -1\nmax_iter: 4\n")
    train(folder)
    write_run(folder, 5, "random_seed: -1\nmax_iter: 9\n")
    train(folder, "-snapshot", "run_iter_4.solverstate")
    first = (folder / "run_iter_9.caffemodel").read_bytes()
    train(folder, "-snapshot", "run_iter_4.trainstate")
    assert (folder / "run_iter_9.caffemodel").read_bytes() == first


def test_four_ranks_go_on_as_two(mnist_folder: Path, tmp_path: Path, mpirun: str) -> None:
    """The records of each step stay; sums are rounded otherwise. Without BatchNorm, which looks at the batch of a rank."""
    four = make_folder(tmp_path / "four", mnist_folder)
    settings = "display: 1\nbase_lr: 0.01\n"
    write_run(four, 4, f"{settings}max_iter: 3\n", normalize=False)
    train(four, mpirun=mpirun, ranks=4)
    two = make_folder(tmp_path / "two", mnist_folder)
    for path in four.glob("run_iter_3.*"):
        (two / path.name).write_bytes(path.read_bytes())
    for folder in (four, two):
        write_run(folder, 4, f"{settings}max_iter: 23\n", normalize=False)
    expected = shown_losses(train(four, "--resume", "auto", mpirun=mpirun, ranks=4))
    log = train(two, "--resume", "auto", mpirun=mpirun, ranks=2)
    found = shown_losses(log)
    assert list(found) == list(expected) == list(range(3, 23))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)
    assert "The snapshot was written on 4 ranks; each of 2 now takes 8 records in each of 1 passes of a step" in log
    assert "Effective batch: 16 images = batch_size 8 x iter_size 1 x 2 ranks" in log
