"""`paratrain train --exchange-dtype` and `--bn`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli import SMALL_NET, messages, paratrain, paratrain_here, write_solver

LINES = SMALL_NET.replace(' include { stage: "bn" }', "").splitlines()
NORMALIZED = "\n".join(line for line in LINES if '"copy1"' not in line)


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def shown_losses(lines: list[str]) -> list[float]:
    return [float(line.rsplit(" ", 1)[1]) for line in lines if " iters), loss = " in line]


def test_two_ranks_that_send_half_and_normalize_together(folder: Path, mpirun: str) -> None:
    """They follow one rank with batches twice as large, whose gradients nobody rounds; the test net uses what they kept."""
    assert "exclude" not in NORMALIZED
    settings = "display: 1\ntest_iter: 2\ntest_interval: 4\nsnapshot_after_train: false\n"
    one = write_solver(folder, settings, net=NORMALIZED, name="one")
    half = NORMALIZED.replace("batch_size: 32", "batch_size: 16")
    two = write_solver(folder, settings, net=half, name="two")
    options = ("--bn", "sync", "--exchange", "ring", "--exchange-dtype", "bfloat16")
    runs = [paratrain_here(folder, "train", one, *options)]
    runs.append(paratrain(folder, "train", two, *options, launcher=(mpirun, "-n", "2")))
    for done in runs:
        assert done.returncode == 0, done.stderr
    alone, together = map(messages, runs)
    losses = shown_losses(together)
    assert len(losses) == 4
    assert losses == pytest.approx(shown_losses(alone), rel=0.02)
    assert losses[0] == pytest.approx(shown_losses(alone)[0], rel=1e-5)  # nothing has been sent yet
    assert "Batch normalization: sync: mean and variance are those of the batches of all ranks" in together
    [exchange] = [line for line in together if line.startswith("Exchange:")]
    assert "ring, by messages, gradients sent as bfloat16 and summed in float32, every rank updates a part" in exchange
    [values] = [line.split()[1] for line in together if line.startswith("Parameters: ")]
    assert f"in every step {int(values) * 2 / 1000:.4g} kB of gradients of each rank" in exchange
    assert not any(line.startswith(("Exchange", "Batch normalization")) for line in alone)


@pytest.mark.parametrize(("option", "value"), [("--exchange-dtype", "float64"), ("--bn", "leaf")])
def test_other_values_are_refused(folder: Path, option: str, value: str) -> None:
    done = paratrain_here(folder, "train", write_solver(folder), option, value)
    assert done.returncode != 0
    assert f"{option}: invalid choice: '{value}'" in done.stderr
