"""What the README and the quickstart tell people to run, at a smaller size."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paratrain.tools import digits, plot


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, the digits in demo-output, and a solver that stops after 50 iterations."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(repository / "examples", folder / "examples", ignore=shutil.ignore_patterns("*_lmdb"))
    digits.write_digits(folder / "demo-output")
    solver = folder / "examples/digits/lenet_solver.prototxt"
    text, count = re.subn(r"(max_iter|snapshot): 400\b", r"\1: 50", solver.read_text())
    assert count == 2
    solver.write_text(text)
    return folder


def run(folder: Path, repository: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_digits_on_two_ranks(folder: Path, repository: Path, mpirun: str) -> None:
    solver = "examples/digits/lenet_solver.prototxt"
    paratrain = (sys.executable, "-m", "paratrain")
    run(folder, repository, mpirun, "-n", "2", *paratrain, "train", solver, "--metrics", "demo-output/metrics.jsonl")

    metrics = plot.read_metrics(folder / "demo-output/metrics.jsonl")
    assert set(metrics.loss) == {0, 10, 20, 30, 40}
    assert metrics.loss[40] < 0.3 * metrics.loss[0]
    assert set(metrics.tests[0, "accuracy"]) == {0, 50}
    # Seeded, so always alike on one machine: 0.86 where this was written.
    assert metrics.tests[0, "accuracy"][50] > 0.8

    weights = "demo-output/lenet_iter_50.caffemodel"
    assert (folder / weights).is_file()
    net = "examples/digits/lenet_train_test.prototxt"
    log = run(folder, repository, *paratrain, "test", "-model", net, "-weights", weights, "-iterations", "3")
    (accuracy,) = re.findall(r"\] accuracy = ([\d.]+)$", log, re.MULTILINE)
    assert float(accuracy) == pytest.approx(metrics.tests[0, "accuracy"][50], abs=1e-5)


def test_the_mnist_example_trains_too(folder: Path, repository: Path) -> None:
    """On the digits in MNIST's place: the same shapes."""
    for part in ("train", "test"):
        source = folder / f"demo-output/digits_{part}_lmdb"
        (folder / f"examples/mnist/mnist_{part}_lmdb").symlink_to(source)
    solver = folder / "examples/mnist/lenet_solver.prototxt"
    text, count = re.subn(r"max_iter: 10000|test_iter: 100|snapshot: 5000", "", solver.read_text())
    assert count == 3
    solver.write_text(text + "max_iter: 3\ntest_iter: 1\nsnapshot: 3\n")
    log = run(folder, repository, sys.executable, "-m", "paratrain", "train", "examples/mnist/lenet_solver.prototxt")
    assert "Optimization Done." in log
    assert (folder / "examples/mnist/lenet_iter_3.caffemodel").is_file()
