"""`paratrain train --check-links`: the same training, after the links between ranks were tested."""

from __future__ import annotations

from pathlib import Path

from tests.integration.cli import SMALL_NET, messages, paratrain, write_solver


def test_training_after_a_test_of_the_links_is_the_same_training(
    mnist_folder: Path, tmp_path: Path, mpirun: str
) -> None:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    net = SMALL_NET.replace("batch_size: 32", "batch_size: 16")
    plain = write_solver(tmp_path, net=net, name="plain")
    checked = write_solver(tmp_path, net=net, name="checked")
    launcher = (mpirun, "-n", "2")
    runs = [
        paratrain(tmp_path, "train", plain, launcher=launcher),
        paratrain(tmp_path, "train", checked, "--check-links", launcher=launcher),
    ]
    for done in runs:
        assert done.returncode == 0, done.stderr
    assert "Links: tested 1, 0 bad" not in messages(runs[0])
    assert "Links: tested 1, 0 bad" in messages(runs[1])
    models = [(tmp_path / f"{name}_iter_4.caffemodel").read_bytes() for name in ("plain", "checked")]
    assert models[0] == models[1]


def test_one_rank_has_no_links(mnist_folder: Path, tmp_path: Path) -> None:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    done = paratrain(tmp_path, "train", write_solver(tmp_path), "--check-links")
    assert done.returncode == 0, done.stderr
    assert not [line for line in messages(done) if line.startswith("Links:")]
