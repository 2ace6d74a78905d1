"""The cores of ranks, and backends side by side, from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from paratrain.backends import BACKENDS
from paratrain.topology.cores import local_core_place
from tests.integration.cli import messages, paratrain, paratrain_here, write_solver
from tests.paths import GOLDEN

DATA_NET = (GOLDEN / "solvers/sgd.net.prototxt").read_text()


def test_two_ranks_stay_on_cores_of_their_own_and_time_every_backend(
    mnist_folder: Path, tmp_path: Path, mpirun: str
) -> None:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    write_solver(tmp_path, net=DATA_NET)
    words = ("time", "small.net.prototxt", "-iterations", "2", "--compare", "--json", "--threads", "1")
    done = paratrain(tmp_path, *words, launcher=(mpirun, "-n", "2"))
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    works = [name for name in BACKENDS.names() if BACKENDS.get(name).problem() is None]
    assert (values["schema"], values["ranks"], values["backends"]) == (1, 2, works)
    layers = {layer["name"]: layer for layer in values["layers"]}
    assert all(set(layer["backends"]) == set(works) for layer in layers.values())
    products = [layer for layer in layers.values() if layer["forward_operations"]]
    assert products
    for layer in products:
        for one in layer["backends"].values():
            operations = layer["forward_operations"] + layer["backward_operations"]
            assert one["flops"] == pytest.approx(operations / (one["forward_s"] + one["backward_s"]))
    (line,) = [line for line in messages(done) if line.startswith("Threads:")]
    place = local_core_place()
    if place.quota is None and len(place.cores) > 1:
        assert re.fullmatch(r"Threads: 1 in each rank, pinned to cores \S+ / \S+ \(--threads\)", line)


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    for words, message in (
        (("--json",), "--json goes with --compare"),
        (("--threads", "0"), "0 is not above 0"),
        (("--pin", "hard"), "invalid choice: 'hard'"),
    ):
        done = paratrain_here(tmp_path, "time", "net.prototxt", *words)
        assert done.returncode == 2
        assert message in done.stderr
