"""`paratrain train --topology FILE`: the saved tree is the one that ranks use, and files that do not fit are explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from paratrain.backends import create_backend
from paratrain.proto import NetParameter, blob_to_array, read_binary
from paratrain.solvers import create_solver, read_solver
from tests.integration.cli import error, messages, paratrain, paratrain_here, write_solver

SETTINGS = "max_iter: 1\ndisplay: 1\nmomentum: 0.9\n"


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def save_plan(folder: Path, name: str, *options: str) -> str:
    done = paratrain_here(folder, "topology", "--machine", "caffe-4x-pcie", *options, "--save", name)
    assert done.returncode == 0, done.stderr
    return name


def trained(folder: Path, name: str) -> list[NDArray[np.generic]]:
    model = read_binary(folder / f"{name}_iter_1.caffemodel", NetParameter)
    return [blob_to_array(blob) for layer in model.layer for blob in layer.blobs]


class Added:
    """Stands in for the ranks: the gradients of all three added as `order` says, each pair in brackets first."""

    def __init__(self, solvers: list[Any], order: Any) -> None:
        self._solvers, self._order = solvers, order

    def on_start(self) -> None:
        pass

    def on_finish(self) -> None:
        pass

    def on_gradient_ready(self) -> None:
        def total(order: Any) -> NDArray[np.generic]:
            if isinstance(order, int):
                return self._solvers[order].net.parameters.diff.host().copy()
            one, other = order
            result: NDArray[np.generic] = total(one) + total(other)
            return result

        for solver in self._solvers[1:]:
            solver.net.forward()
            solver.net.backward()
        diff = self._solvers[0].net.parameters.diff.mutable_host()
        diff[...] = total(self._order)
        diff *= 1.0 / len(self._solvers)


def expected(folder: Path, solver_file: str, order: Any, monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.generic]]:
    monkeypatch.chdir(folder)
    parameter = read_solver(solver_file)
    parameter.snapshot_after_train = False
    solvers = [
        create_solver(parameter, backend=create_backend("numpy"), rank=rank, size=3, seed=parameter.random_seed)
        for rank in range(3)
    ]
    solvers[0].add_callback(Added(solvers, order))
    solvers[0].step(1)
    values = [np.array(blob.data) for layer in solvers[0].net.params.values() for blob in layer]
    for solver in solvers:
        solver.close()
    return values


@pytest.mark.parametrize(
    ("shape", "line", "order"),
    [
        ("chain", "Tree: rank 0 adds 1; rank 1 adds 2 (the chain of 3 GPUs in plan.json)", (0, (1, 2))),
        ("star", "Tree: rank 0 adds 1, 2 (the star of 3 GPUs in plan.json)", ((0, 1), 2)),
    ],
)
def test_gradients_are_added_in_the_order_of_the_saved_tree(
    shape: str, line: str, order: Any, folder: Path, mpirun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = save_plan(folder, "plan.json", "--gpus", "0,1,2", "--tree", shape)
    solver = write_solver(folder, SETTINGS)
    arguments = ("train", solver, "--topology", plan, "--backend", "numpy")  # whose bits can be worked out
    done = paratrain(folder, *arguments, launcher=(mpirun, "-n", "3"))
    assert done.returncode == 0, done.stderr
    assert line in messages(done)
    found, wanted = trained(folder, "small"), expected(folder, solver, order, monkeypatch)
    assert [values.tobytes() for values in found] == [values.tobytes() for values in wanted]
    other = expected(folder, solver, (0, (1, 2)) if shape == "star" else ((0, 1), 2), monkeypatch)
    assert [values.tobytes() for values in found] != [values.tobytes() for values in other]  # so the order does show


def test_the_root_of_the_plan_becomes_rank_0(folder: Path, mpirun: str) -> None:
    plan = save_plan(folder, "plan.json", "--gpus", "0,1,3", "--root", "3", "--tree", "star")
    done = paratrain(folder, "train", write_solver(folder, SETTINGS), f"-topology={plan}", launcher=(mpirun, "-n", "3"))
    assert done.returncode == 0, done.stderr
    line = "Tree: rank 0 adds 1, 2 (the star of 3 GPUs in plan.json; ranks in place of GPUs 3, 0, 1)"
    assert line in messages(done)


def test_a_plan_of_cpu_ranks(folder: Path, mpirun: str) -> None:
    assert paratrain_here(folder, "topology", "--ranks", "2", "--save", "cpu.json").returncode == 0
    solver = write_solver(folder, SETTINGS)
    done = paratrain(folder, "train", solver, "--topology", "cpu.json", launcher=(mpirun, "-n", "2"))
    assert done.returncode == 0, done.stderr
    assert "Tree: rank 0 adds 1 (the tree in the order of the indices of 2 ranks in cpu.json)" in messages(done)


def test_without_a_file_the_log_says_which_tree_ranks_use(folder: Path, mpirun: str) -> None:
    done = paratrain(folder, "train", write_solver(folder, SETTINGS), launcher=(mpirun, "-n", "2"))
    assert "Tree: rank 0 adds 1 (by the nodes on which ranks run)" in messages(done)


def test_a_plan_for_another_count_of_ranks(folder: Path, mpirun: str) -> None:
    plan = save_plan(folder, "plan.json")
    solver = write_solver(folder, SETTINGS)
    done = paratrain(folder, "train", solver, "--topology", plan, launcher=(mpirun, "-n", "2"))
    assert error(done) == (
        "plan.json: its tree joins 4 GPUs of one node, but this run has 2 ranks on one node; start 4 ranks on every "
        "node, or save a plan for as many as there are"
    )
    alone = paratrain_here(folder, "train", solver, "--topology", plan)
    assert "but this run has 1 rank on one node" in error(alone)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--topology plan.json: cannot be read: No such file or directory"),
        ("", "plan.json: is empty"),
        ('{"schema": 1, "gpus": [', "plan.json:1:24: the JSON is damaged or cut (Expecting value)"),
        ('{"schema": 0, "gpus": []}', "plan.json: expected a saved plan of schema 1, found schema 0"),
        ('{"gpus": []}', "plan.json: expected a saved plan of schema 1, found no schema number"),
        ("GPU0 GPU1\nGPU0 X NV1\nGPU1 NV1 X\n", "plan.json: is no saved plan, which would be JSON"),
        (json.dumps({"schema": 1, "gpus": [{"index": 0}]}), "plan.json: tree: expected an object, found nothing"),
    ],
)
def test_files_that_hold_no_plan(content: str | None, message: str, folder: Path, mpirun: str) -> None:
    if content is not None:
        (folder / "plan.json").write_text(content)
    arguments = ("train", write_solver(folder, SETTINGS), "--topology", "plan.json")
    assert error(paratrain_here(folder, *arguments)).startswith(message)
    if content is None or content.startswith('{"schema": 1'):  # enough for several ranks: no hang, and said once
        done = paratrain(folder, *arguments, launcher=(mpirun, "-n", "2"))
        assert error(done).startswith(message)
