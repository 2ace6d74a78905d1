"""What the tests of resuming share: a net that draws from everything random, and its runs."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from tests.integration.cli import messages, paratrain, write_solver

RECORDS = 61  # a prime: no batch divides an epoch

NET = """
name: "everything"
layer { name: "rows" type: "HDF5Data" top: "x" top: "label" include { phase: TRAIN }
  hdf5_data_param { source: "rows.txt" batch_size: BATCH shuffle: true } }
layer { name: "images" type: "Data" top: "image" top: "image_label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 crop_size: 20 mirror: true }
  data_param { source: "mnist_train_lmdb" batch_size: BATCH backend: LMDB rand_skip: 50 shuffle: true } }
layer { name: "rows" type: "HDF5Data" top: "x" top: "label" include { phase: TEST }
  hdf5_data_param { source: "rows.txt" batch_size: 7 shuffle: true } }
layer { name: "images" type: "Data" top: "image" top: "image_label" include { phase: TEST }
  transform_param { scale: 0.00390625 crop_size: 20 } data_param { source: "mnist_train_lmdb" batch_size: 7 backend: LMDB } }
layer { name: "unused" type: "Silence" bottom: "image_label" }
layer { name: "conv" type: "Convolution" bottom: "image" top: "conv"
  convolution_param { num_output: 3 kernel_size: 5 stride: 4 weight_filler { type: "xavier" } } }
NORMALIZE
layer { name: "flat" type: "Flatten" bottom: "conv" top: "flat" }
layer { name: "both" type: "Concat" bottom: "flat" bottom: "x" top: "both" }
layer { name: "drop" type: "Dropout" bottom: "both" top: "both" dropout_param { dropout_ratio: 0.4 } }
layer { name: "ip" type: "InnerProduct" bottom: "both" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
NORMALIZE = """
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
"""


def make_folder(folder: Path, mnist_folder: Path) -> Path:
    """The records: digits, and rows of random numbers whose labels follow from them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mnist_train_lmdb").symlink_to(mnist_folder / "mnist_train_lmdb")
    random = np.random.default_rng(5)
    rows = random.standard_normal((RECORDS, 6)).astype(np.float32)
    with h5py.File(folder / "rows.h5", "w") as file:
        file["x"], file["label"] = rows, rows[:, :3].argmax(axis=1).astype(np.float32)
    (folder / "rows.txt").write_text("rows.h5\n")
    return folder


def write_run(folder: Path, batch: int, settings: str = "", *, normalize: bool = True) -> str:
    """Write net and solver with this batch per rank; return the solver's name."""
    text = NET.replace("BATCH", str(batch)).replace("NORMALIZE", NORMALIZE if normalize else "")
    return write_solver(folder, f"momentum: 0.9\n{settings}", net=text, name="run")


def train(folder: Path, *arguments: str, mpirun: str = "", ranks: int = 1) -> list[str]:
    """Run ``paratrain train`` to its end; return the log."""
    launcher = (mpirun, "-n", str(ranks)) if ranks > 1 else ()
    done = paratrain(folder, "train", "run.solver.prototxt", *arguments, launcher=launcher)
    assert done.returncode == 0, done.stderr
    return messages(done)


def shown_losses(log: list[str]) -> dict[int, float]:
    """The displayed losses by iteration."""
    lines = [line for line in log if " iters), loss = " in line]
    return {int(line.split()[1]): float(line.rsplit(" ", 1)[1]) for line in lines}


def shown_scores(log: list[str]) -> dict[str, list[str]]:
    """The outputs of each test, by the line that begins it."""
    scores: dict[str, list[str]] = {}
    test = ""
    for line in log:
        if ", Testing net" in line:
            test = line
            scores[test] = []
        elif "Test net output" in line:
            scores[test].append(line)
    return scores
