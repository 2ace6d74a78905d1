"""n ranks of batch b take the steps of one rank of batch n x b: the property the project stands on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.paths import GOLDEN, REPOSITORY

FOLLOW = Path(__file__).with_name("follow.py")
STEPS = 60


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    for path in (GOLDEN / "solvers").glob("*.caffemodel"):
        shutil.copy(path, tmp_path)
    return tmp_path


def write_solver(folder: Path, name: str, batch: int) -> str:
    """Copy a recorded run with another batch size for its TRAIN data layer."""
    net = (GOLDEN / "solvers" / f"{name}.net.prototxt").read_text()
    old = next(line for line in net.splitlines() if "mnist_train_lmdb" in line)
    sized = old.replace(old.partition("batch_size: ")[2].split()[0], str(batch), 1)
    (folder / f"{name}.net.prototxt").write_text(net.replace(old, sized))
    shutil.copy(GOLDEN / "solvers" / f"{name}.solver.prototxt", folder)
    return f"{name}.solver.prototxt"


def train(
    mpirun: str, ranks: int, folder: Path, solver: str, weights: str, steps: int, *exchange: str
) -> dict[str, npt.NDArray[np.generic]]:
    """What follow.py saw on this number of ranks."""
    command = [mpirun, "-n", str(ranks), sys.executable, str(FOLLOW), solver, weights, str(steps), "out.npz", *exchange]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as saved:
        assert saved["size"] == ranks
        return {key: saved[key] for key in saved.files}


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_of_small_batches_follow_caffe_with_one_of_64(ranks: int, mpirun: str, folder: Path) -> None:
    expected = np.load(GOLDEN / "solvers" / "sgd_batch_64.npz")["loss"]
    solver = write_solver(folder, "sgd_batch_64", 64 // ranks)
    found = train(mpirun, ranks, folder, solver, "init.caffemodel", STEPS)
    np.testing.assert_allclose(found["losses"][:20], expected[:20], rtol=1e-4)
    np.testing.assert_allclose(found["losses"][-1], expected[-1], rtol=0.02)
    for step, hashes in enumerate(found["hashes"]):
        assert len(set(hashes)) == 1, f"ranks hold different parameters after step {step}"


@pytest.mark.parametrize(("ranks", "exchange"), [(2, "ring"), (2, "mpi"), (4, "sharded")])
def test_every_exchange_follows_caffe(ranks: int, exchange: str, mpirun: str, folder: Path) -> None:
    expected = np.load(GOLDEN / "solvers" / "sgd_batch_64.npz")["loss"]
    solver = write_solver(folder, "sgd_batch_64", 64 // ranks)
    found = train(mpirun, ranks, folder, solver, "init.caffemodel", STEPS, exchange)
    np.testing.assert_allclose(found["losses"][:20], expected[:20], rtol=1e-4)
    np.testing.assert_allclose(found["losses"][-1], expected[-1], rtol=0.02)
    for step, hashes in enumerate(found["hashes"]):
        assert len(set(hashes)) == 1, f"ranks hold different parameters after step {step}"


@pytest.mark.parametrize("name", ["sgd_bn", "sgd_clip", "sgd_iter_size"])
def test_two_runs_give_the_same_bits(name: str, mpirun: str, folder: Path) -> None:
    solver = write_solver(folder, name, 16)
    weights = "init_bn.caffemodel" if "bn" in name else "init.caffemodel"
    first, second = (train(mpirun, 3, folder, solver, weights, 10) for _ in range(2))
    np.testing.assert_array_equal(first["hashes"], second["hashes"])
    np.testing.assert_array_equal(first["losses"], second["losses"])
    for hashes in first["hashes"]:
        assert len(set(hashes)) == 1
    assert len(set(first["hashes"][:, 0])) == 10  # it does learn


@pytest.mark.parametrize("name", ["sgd_clip", "sgd_iter_size", "sgd_l1"])
def test_three_ranks_follow_our_own_single_rank(name: str, mpirun: str, folder: Path) -> None:
    one = train(mpirun, 1, folder, write_solver(folder, name, 48), "init.caffemodel", 20)
    three = train(mpirun, 3, folder, write_solver(folder, name, 16), "init.caffemodel", 20)
    np.testing.assert_allclose(three["losses"], one["losses"], rtol=1e-4)
