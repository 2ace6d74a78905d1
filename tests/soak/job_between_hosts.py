"""The job that is trained across two hosts: a net of some MB of parameters, rows of random numbers, and a solver."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

__all__ = ["PARAMETER_BYTES", "write_files", "write_solver"]

NET = """
name: "two_hosts"
layer { name: "rows" type: "HDF5Data" top: "x" top: "label"
  hdf5_data_param { source: "rows.txt" batch_size: 8 shuffle: true } }
layer { name: "one" type: "InnerProduct" bottom: "x" top: "one"
  inner_product_param { num_output: 1024 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "one" top: "one" }
layer { name: "relu" type: "ReLU" bottom: "one" top: "one" }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two"
  inner_product_param { num_output: 1024 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "two" top: "two" }
layer { name: "three" type: "InnerProduct" bottom: "two" top: "three"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "three" bottom: "label" top: "loss" }
"""
FEATURE_COUNT = 256
PARAMETER_BYTES = 4 * ((FEATURE_COUNT + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 10)
SOLVER = """
net: "net.prototxt" type: "SGD" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005
random_seed: 1 solver_mode: CPU max_iter: {last} display: 0 snapshot_prefix: "net"
"""


def write_files(folder: Path) -> None:
    """The net and 320 rows of random numbers."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((320, FEATURE_COUNT)).astype(np.float32)
    with h5py.File(folder / "rows.h5", "w") as file:
        file["x"], file["label"] = rows, rows[:, :10].argmax(axis=1).astype(np.float32)
    (folder / "rows.txt").write_text("rows.h5\n")
    (folder / "net.prototxt").write_text(NET)


def write_solver(folder: Path, last: int) -> None:
    """A solver for ``last`` iterations."""
    (folder / "solver.prototxt").write_text(SOLVER.format(last=last))
