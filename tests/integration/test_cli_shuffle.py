"""``--shuffle``: the training data in another order each epoch."""

from __future__ import annotations

from pathlib import Path

import pytest

from paratrain.proto import NetParameter, blob_to_array, read_binary
from tests.integration.cli import SMALL_NET, error, paratrain_here, write_solver

TRAINED = 'source: "mnist_train_lmdb"'
NO_DATA = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 } shape { dim: 2 } } }
layer { name: "test" type: "Data" top: "x" top: "y" include { phase: TEST }
  data_param { source: "mnist_test_lmdb" batch_size: 2 backend: LMDB } }
layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "loss" include { phase: TRAIN } }
"""


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def trained(folder: Path, *options: str, order: str = "") -> bytes:
    """The weights after a run with these options, of the net whose training data have this order."""
    assert TRAINED in SMALL_NET
    solver = write_solver(folder, net=SMALL_NET.replace(TRAINED, f"{TRAINED} {order}"))
    done = paratrain_here(folder, "train", solver, *options)
    assert done.returncode == 0, done.stderr
    model = read_binary(folder / "small_iter_4.caffemodel", NetParameter)
    return b"".join(blob_to_array(blob).tobytes() for layer in model.layer for blob in layer.blobs)


def test_it_is_what_the_net_can_say_too(folder: Path) -> None:
    plain = trained(folder)
    shuffled = trained(folder, "--shuffle", "full")
    windows = trained(folder, "--shuffle", "window:100")
    assert len({plain, shuffled, windows}) == 3
    assert trained(folder, order="shuffle: true") == shuffled
    assert trained(folder, order="shuffle_window: 100") == windows
    assert trained(folder, "--shuffle=full", order="shuffle_window: 100") == shuffled
    assert trained(folder, "--shuffle", "none", order="shuffle: true") == plain


@pytest.mark.parametrize("mode", ["window:0", "window:x", "window", "some", ""])
def test_other_words_are_refused(tmp_path: Path, mode: str) -> None:
    done = paratrain_here(tmp_path, "train", "solver.prototxt", "--shuffle", mode)
    assert done.returncode == 2
    assert "is not none, full or window:K" in done.stderr


def test_a_net_without_data_that_can_be_shuffled(folder: Path) -> None:
    done = paratrain_here(folder, "train", write_solver(folder, net=NO_DATA), "--shuffle", "full")
    assert "--shuffle is for layers of the types Data, ImageData, HDF5Data, and the net has none" in error(done)
