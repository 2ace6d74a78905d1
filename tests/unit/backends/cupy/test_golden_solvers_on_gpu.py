"""Training runs of BVLC Caffe, followed on the GPU by each type of solver that Caffe has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.net import CopyRules
from paratrain.snapshot import load_all_weights
from paratrain.solvers import create_solver, read_solver
from paratrain.solvers.device_update import DeviceFlatUpdate
from tests.paths import GOLDEN


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adagrad", "rmsprop", "adadelta", "adam"])
def test_a_training_run_is_followed(
    name: str, mnist_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (GOLDEN / "solvers").glob("*.prototxt"):
        shutil.copy(path, tmp_path)
    for database in ("mnist_train_lmdb", "mnist_test_lmdb"):
        os.symlink(mnist_folder / database, tmp_path / database)
    monkeypatch.chdir(tmp_path)
    expected = np.load(GOLDEN / "solvers" / f"{name}.npz")["loss"][:10]
    solver = create_solver(read_solver(f"{name}.solver.prototxt"), backend=create_backend("cupy"))
    assert isinstance(solver.flat_update, DeviceFlatUpdate)
    load_all_weights(solver.net, [str(GOLDEN / "solvers" / "init.caffemodel")], CopyRules())
    losses = []
    for _ in expected:
        solver.step(1)
        losses.append(solver.loss)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    solver.close()
