"""SyncBN on n ranks of batch b is BN, or SyncBN, on one rank of batch n b: forward, backward, and over steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.paths import REPOSITORY

SCRIPT = Path(__file__).with_name("sync_bn.py")
NET = """
layer { name: "x" type: "Input" top: "x" top: "target"
  input_param { shape { dim: BATCH dim: 2 dim: 6 dim: 5 } shape { dim: BATCH dim: 4 dim: 4 dim: 3 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "KIND" bottom: "conv" top: "bn"
  bn_param { slope_filler { value: 1.5 } bias_filler { value: 0.25 } momentum: 0.8 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "bn" bottom: "target" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.02 momentum: 0.9 lr_policy: "fixed" max_iter: 10 random_seed: 4
snapshot_after_train: false
"""


def train(
    mpirun: str, folder: Path, kind: str, ranks: int, batch: int, steps: int
) -> dict[str, npt.NDArray[np.generic]]:
    """What sync_bn.py saw on this number of ranks."""
    (folder / "net.prototxt").write_text(NET.replace("BATCH", str(batch)).replace("KIND", kind))
    (folder / "solver.prototxt").write_text(SOLVER)
    command = [mpirun, "-n", str(ranks), sys.executable, str(SCRIPT), "solver.prototxt", str(steps), "out.npz"]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as saved:
        assert saved["size"] == ranks
        return {key: saved[key] for key in saved.files if key != "size"}


@pytest.mark.parametrize("steps", [1, 4])
def test_two_ranks_are_one_with_the_whole_batch(steps: int, mpirun: str, tmp_path: Path) -> None:
    whole = train(mpirun, tmp_path, "BN", 1, 8, steps)
    alone = train(mpirun, tmp_path, "SyncBN", 1, 8, steps)
    together = train(mpirun, tmp_path, "SyncBN", 2, 4, steps)
    apart = train(mpirun, tmp_path, "BN", 2, 4, steps)
    for key, value in whole.items():
        np.testing.assert_allclose(alone[key], value, rtol=2e-4, atol=2e-5, err_msg=key)
        for row in together[key] if key == "statistics" else [together[key]]:
            expected = value[0] if key == "statistics" else value
            np.testing.assert_allclose(row, expected, rtol=2e-4, atol=2e-5, err_msg=key)
    assert np.array_equal(together["statistics"][0], together["statistics"][1])
    # The test can tell: ranks that normalize each for themselves give something else.
    assert np.abs(apart["bn data"] - whole["bn data"]).max() > 0.01
    assert np.abs(apart["conv diff"] - whole["conv diff"]).max() > 1e-3
