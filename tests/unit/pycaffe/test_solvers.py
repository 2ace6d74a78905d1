"""Solvers as scripts make and drive them."""

from __future__ import annotations

import gc
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

import paratrain as caffe
from paratrain.errors import PrototxtError, SnapshotError
from tests.unit.pycaffe.conftest import SOLVER

pytestmark = pytest.mark.usefixtures("folder")

KINDS = ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"]


def feed(net: caffe.Net) -> None:
    net.blobs["data"].data[...] = np.arange(12).reshape(4, 3) / 10
    net.blobs["label"].data[...] = [0, 1, 0, 1]


def test_a_solver_steps_and_learns(backend: str) -> None:
    solver = caffe.get_solver("solver.prototxt")
    feed(solver.net)
    losses = []
    for _ in range(20):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert solver.iter == 20
    assert losses[-1] < losses[0]
    assert len(solver.test_nets) == 1
    assert solver.param.max_iter == 5
    assert solver.param.layer_wise_reduce
    assert solver.lr == pytest.approx(0.1)
    assert backend


def test_steps_between_which_a_script_writes(backend: str) -> None:
    """SGD with momentum, by hand beside the solver: what the script puts into data counts, and diff has the last update."""
    solver = caffe.SGDSolver("solver.prototxt")
    feed(solver.net)
    weights, bias = solver.net.params["ip"]
    held = weights.data
    velocity = np.zeros((2, 3), np.float32)
    for step in range(3):
        weights.data[...] = np.full((2, 3), step + 1) * [[1], [-1]]
        bias.data[...] = 0
        before = held.copy()
        logits = solver.net.blobs["data"].data @ before.T
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        gradient = (chances - np.eye(2)[[0, 1, 0, 1]]).T @ solver.net.blobs["data"].data / 4
        solver.step(1)
        velocity = 0.9 * velocity + 0.1 * gradient
        np.testing.assert_allclose(held, before - velocity, rtol=1e-5)
        np.testing.assert_allclose(weights.diff, velocity, rtol=1e-4, atol=1e-6)
        assert np.shares_memory(held, weights.data)
    assert backend


def test_an_update_from_gradients_of_ones_own(backend: str) -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    weights, bias = solver.net.params["ip"]
    weights.data[...] = 0
    weights.diff[...] = 1
    bias.data[...] = 0
    bias.diff[...] = 0
    solver.apply_update()
    np.testing.assert_allclose(weights.data, -0.1, rtol=1e-6)
    assert not bias.data.any()
    assert solver.iter == 1
    weights.diff[...] = 0
    solver.apply_update()
    np.testing.assert_allclose(weights.data, -0.1 - 0.09, rtol=1e-6)
    assert solver.iter == 2
    assert backend


def test_a_loop_of_ones_own_is_a_step() -> None:
    ours, theirs = caffe.SGDSolver("solver.prototxt"), caffe.SGDSolver("solver.prototxt")
    for solver in (ours, theirs):
        feed(solver.net)
    for _ in range(4):
        ours.net.clear_param_diffs()
        ours.net.forward()
        ours.net.backward()
        ours.apply_update()
        theirs.step(1)
    np.testing.assert_array_equal(ours.net.params["ip"][0].data, theirs.net.params["ip"][0].data)
    assert ours.iter == theirs.iter == 4


def test_weights_are_shared_with_a_net_for_testing() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    net = caffe.Net("net.prototxt", caffe.TEST)
    solver.share_weights(net)
    feed(solver.net)
    solver.step(2)
    np.testing.assert_array_equal(net.params["ip"][0].data, solver.net.params["ip"][0].data)
    solver.test_nets[0].share_with(solver.net)
    feed(solver.test_nets[0])
    assert set(solver.test_nets[0].forward()) == {"accuracy", "loss"}


def test_solve_snapshot_and_restore(folder: Path) -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    feed(solver.net)
    solver.step(3)
    assert solver.snapshot() is None
    solver.step(2)
    expected = solver.net.params["ip"][0].data.copy()
    for resume in (
        lambda again: again.solve("small_iter_3.solverstate"),
        lambda again: (again.restore("small_iter_3.solverstate"), again.solve()),
    ):
        again = caffe.SGDSolver("solver.prototxt")
        feed(again.net)
        resume(again)
        assert again.iter == 5
        np.testing.assert_array_equal(again.net.params["ip"][0].data, expected)
    assert (folder / "small_iter_3.caffemodel").exists()
    with pytest.raises(SnapshotError, match=r"nowhere.solverstate"):
        solver.restore("nowhere.solverstate")


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_pycaffes_solvers(folder: Path, kind: str) -> None:
    (folder / "solver.prototxt").write_text(SOLVER.replace("momentum: 0.9", "") + f'type: "{kind}"')
    solver = getattr(caffe, f"{kind}Solver")("solver.prototxt")
    assert type(solver).__name__ == f"{kind}Solver"
    assert [isinstance(solver, getattr(caffe, f"{other}Solver")) for other in KINDS] == [kind == k for k in KINDS]
    feed(solver.net)
    before = solver.net.params["ip"][0].data.copy()
    solver.step(1)
    assert (solver.net.params["ip"][0].data != before).any()


def test_a_solver_class_is_not_derived_from() -> None:
    with pytest.raises(TypeError, match="Mine cannot derive from a solver: keep one"):

        class Mine(caffe.SGDSolver):
            pass


def test_a_solver_class_wins_over_the_type_in_the_file(folder: Path) -> None:
    solver = caffe.AdamSolver("solver.prototxt")  # a file without a type, which would be SGD
    assert isinstance(solver, caffe.AdamSolver)
    assert solver.param.type == "Adam"
    (folder / "solver.prototxt").write_text(SOLVER + 'type: "Adam"')
    with pytest.warns(UserWarning, match="type is 'Adam', but SGDSolver.* trains by SGD") as caught:
        solver = caffe.SGDSolver("solver.prototxt")
    assert isinstance(solver, caffe.SGDSolver)
    assert not isinstance(solver, caffe.AdamSolver)
    assert caught[0].filename == __file__


def test_missing_and_wrong_files_say_so(folder: Path) -> None:
    with pytest.raises(PrototxtError, match=r"nowhere.prototxt"):
        caffe.get_solver("nowhere.prototxt")
    (folder / "solver.prototxt").write_text(SOLVER + "momentun: 0.9")
    with pytest.raises(PrototxtError, match=r"momentun.*momentum"):
        caffe.get_solver("solver.prototxt")


def test_an_array_taken_once_shows_every_batch(mnist_folder: Path, folder: Path) -> None:
    """Scripts take ``data = net.blobs["data"].data`` before their loop, as pycaffe lets them."""
    (folder / "digits.prototxt").write_text(
        f"""layer {{ name: "digits" type: "Data" top: "data" top: "label"
            data_param {{ source: "{mnist_folder / "mnist_train_lmdb"}" batch_size: 4 backend: LMDB }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 2 }} }}
        layer {{ name: "silence" type: "Silence" bottom: "ip" bottom: "label" }}
        layer {{ name: "flat" type: "Flatten" bottom: "data" top: "flat" }}"""
    )
    (folder / "solver.prototxt").write_text(SOLVER.split("test_iter")[0].replace("net.prototxt", "digits.prototxt"))
    for net in (caffe.Net("digits.prototxt", caffe.TEST), caffe.get_solver("solver.prototxt").net):
        data, label = net.blobs["data"].data, net.blobs["label"].data
        seen = []
        for _ in range(10):
            out = net.forward()
            assert np.shares_memory(data, net.blobs["data"].data)
            assert np.shares_memory(label, net.blobs["label"].data)
            np.testing.assert_array_equal(out["flat"], data.reshape(4, -1))
            seen.append(data.copy())
            time.sleep(0.01)  # the thread goes on reading, and must not write here
            np.testing.assert_array_equal(data, seen[-1])
        assert all((seen[i] != seen[i + 1]).any() for i in range(9))
        net.close()


def test_a_closed_solver_is_freed_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        solver = caffe.get_solver("solver.prototxt")
        feed(solver.net)
        solver.step(1)
        solver.close()
        gone = weakref.ref(solver), weakref.ref(solver.net)
        del solver
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()
