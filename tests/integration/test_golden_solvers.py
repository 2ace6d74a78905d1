"""Training runs of BVLC Caffe, followed from the same weights over the same digits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import paratrain as caffe
from paratrain.backends import BACKEND_VARIABLE, BACKENDS, DEFAULT_BACKEND, PRECISION_VARIABLE
from tests.optional import need_backend, need_bfloat16
from tests.paths import GOLDEN

RUNS = sorted(path.name.removesuffix(".solver.prototxt") for path in (GOLDEN / "solvers").glob("*.solver.prototxt"))
ON_EACH_BACKEND = ["adam", "sgd", "sgd_bn", "sgd_iter_size"]
"""Runs that are followed on every backend; the others on the default one."""
STATES = sorted(path.name.removesuffix("_iter_30.solverstate") for path in (GOLDEN / "solvers").glob("*.solverstate"))


@pytest.fixture
def run_folder(mnist_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as the recorded runs had it: the solver files and, beside them, the databases."""
    for path in (GOLDEN / "solvers").iterdir():
        shutil.copy(path, tmp_path)
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _initial_weights(name: str) -> str:
    return "init_bn.caffemodel" if "bn" in name else "init.caffemodel"


def _follow(name: str, step_count: int) -> tuple[list[float], float]:
    """The losses of a run from the recorded weights, and the test accuracy after it."""
    solver = caffe.get_solver(f"{name}.solver.prototxt")
    solver.net.copy_from(_initial_weights(name))
    losses = []
    for _ in range(step_count):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    solver.test_nets[0].share_with(solver.net)
    accuracy = np.mean([float(solver.test_nets[0].forward()["accuracy"]) for _ in range(20)])
    solver.close()
    return losses, float(accuracy)


def test_there_are_runs_to_follow() -> None:
    assert len(RUNS) == 16
    assert STATES == ["adam", "rmsprop", "sgd", "sgd_bn"]


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, DEFAULT_BACKEND) for name in RUNS]
    + [(name, other) for other in BACKENDS.names() if other != DEFAULT_BACKEND for name in ON_EACH_BACKEND],
)
def test_a_training_run_is_followed(name: str, backend: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_backend(backend)
    monkeypatch.setenv(BACKEND_VARIABLE, backend)
    recorded = np.load(f"{name}.npz")
    expected = recorded["loss"]
    losses, accuracy = _follow(name, len(expected))

    np.testing.assert_allclose(losses[:20], expected[:20], rtol=1e-4)
    np.testing.assert_allclose(losses[-1], expected[-1], rtol=0.02, atol=1e-3)
    assert accuracy == pytest.approx(float(recorded["test_accuracy"]), abs=0.01)


@pytest.mark.parametrize("name", ["adam", "sgd", "sgd_iter_size"])
def test_a_training_run_in_bfloat16_goes_alike(name: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_bfloat16()
    monkeypatch.setenv(BACKEND_VARIABLE, "onednn")
    monkeypatch.setenv(PRECISION_VARIABLE, "bfloat16")
    recorded = np.load(f"{name}.npz")
    losses, accuracy = _follow(name, len(recorded["loss"]))
    np.testing.assert_allclose(losses[:20], recorded["loss"][:20], rtol=1e-2)
    assert not np.allclose(losses[:20], recorded["loss"][:20], rtol=1e-6), "it has been computed in float32"
    assert accuracy == pytest.approx(float(recorded["test_accuracy"]), abs=0.01)


@pytest.mark.parametrize("name", STATES)
def test_training_goes_on_from_a_state_that_caffe_wrote(name: str, run_folder: Path) -> None:
    expected = np.load(f"{name}.npz")["loss"]
    solver = caffe.get_solver(f"{name}.solver.prototxt")
    for _ in range(30):  # a state says nothing about the data: bring the reader to where Caffe's was
        solver.net.forward()
    solver.restore(f"{name}_iter_30.solverstate")
    assert solver.iter == 30
    losses = []
    for _ in range(10):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    np.testing.assert_allclose(losses, expected[30:40], rtol=1e-3)
    solver.close()
