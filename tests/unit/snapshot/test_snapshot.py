from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.errors import ShapeMismatchError, SnapshotError
from paratrain.proto import (
    NetParameter,
    SolverState,
    blob_to_array,
    parse_prototxt,
    read_binary,
    write_binary,
)
from paratrain.snapshot import check_writable, load_weights, save_weights, split_weights
from paratrain.solvers import Solver, create_solver, read_solver
from tests.paths import GOLDEN

RUNS = GOLDEN / "solvers"


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in RUNS.iterdir():
        shutil.copy(path, tmp_path)
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def open_solver(name: str) -> Solver:
    return create_solver(read_solver(f"{name}.solver.prototxt"), backend=create_backend())


@pytest.mark.parametrize("name", ["sgd", "sgd_bn"])
def test_what_caffe_wrote_is_written_again_to_equal_messages(folder: Path, name: str) -> None:
    state, model = f"{name}_iter_30.solverstate", f"{name}_iter_30.caffemodel"
    caffe_state, caffe_model = read_binary(state, SolverState), read_binary(model, NetParameter)
    solver = open_solver(name)
    solver.restore(state)
    for file in (state, model):
        Path(file).unlink()
    solver.snapshot()
    solver.close()
    assert read_binary(state, SolverState) == caffe_state
    ours = read_binary(model, NetParameter)
    assert ours.name == caffe_model.name
    with_blobs = {layer.name: list(layer.blobs) for layer in ours.layer if layer.blobs}
    assert with_blobs == {layer.name: list(layer.blobs) for layer in caffe_model.layer if layer.blobs}
    assert [layer.name for layer in ours.layer] == [layer.name for layer in caffe_model.layer]


def test_statistics_have_a_history_of_zeros(folder: Path) -> None:
    solver = open_solver("sgd_bn")
    solver.step(2)
    solver.snapshot()
    state = read_binary("sgd_bn_iter_2.solverstate", SolverState)
    entries = solver.net.parameters.entries
    solver.close()
    assert len(state.history) == len(entries)
    for saved, entry in zip(state.history, entries, strict=True):
        values = blob_to_array(saved)
        assert values.shape == entry.blob.shape
        assert np.any(values) == (not entry.is_statistic)
    assert sum(entry.is_statistic for entry in entries) == 3


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("none.solverstate", "no such file"),
        (
            "sgd_iter_30.caffemodel",
            r"expected a SolverState, found a network.*give the \.solverstate beside it.*-weights",
        ),
        ("sgd.net.prototxt", "expected a SolverState, found a text file"),
        (
            "adam_iter_30.solverstate",
            "holds 12 history blobs; solver type SGD keeps 1 for each of this net's 6 parameters",
        ),
        ("sgd_bn_iter_30.solverstate", "holds 11 history blobs"),
    ],
)
def test_states_that_do_not_fit(folder: Path, state: str, message: str) -> None:
    # The recorded net has 6 parameters, and 5 more with batch normalization, its 3 statistics included.
    solver = open_solver("sgd")
    before = solver.net.parameters.data.host().copy()
    with pytest.raises(SnapshotError, match=message):
        solver.restore(state)
    np.testing.assert_array_equal(solver.net.parameters.data.host(), before)
    assert solver.iter == 0
    solver.close()


def test_a_state_of_other_shapes(folder: Path) -> None:
    state = read_binary("sgd_iter_30.solverstate", SolverState)
    state.history[0].shape.dim[:] = [8, 25]
    write_binary("other.solverstate", state)
    solver = open_solver("sgd")
    with pytest.raises(
        SnapshotError, match=r"history of parameter conv1\[0\] has shape \(8, 25\), the parameter \(8, 1, 5, 5\)"
    ):
        solver.restore("other.solverstate")
    solver.close()


def test_a_state_of_an_older_caffe(folder: Path) -> None:
    """Blobs had four axes once, filled up with ones in front."""
    state = read_binary("sgd_iter_30.solverstate", SolverState)
    for saved in state.history:
        shape = (1,) * (4 - len(saved.shape.dim)) + tuple(saved.shape.dim)
        saved.ClearField("shape")
        saved.num, saved.channels, saved.height, saved.width = shape
    write_binary("old.solverstate", state)
    new, old = open_solver("sgd"), open_solver("sgd")
    new.restore("sgd_iter_30.solverstate")
    old.restore("old.solverstate")
    new.step(1)
    old.step(1)
    assert new.net.parameters.data.host().tobytes() == old.net.parameters.data.host().tobytes()
    new.close()
    old.close()


def test_a_state_that_is_cut_off(folder: Path) -> None:
    whole = Path("sgd_iter_30.solverstate").read_bytes()
    Path("cut.solverstate").write_bytes(whole[: len(whole) // 2])
    solver = open_solver("sgd")
    with pytest.raises(SnapshotError, match="cut off"):
        solver.restore("cut.solverstate")
    solver.close()


def test_a_state_whose_weights_are_gone(folder: Path) -> None:
    Path("sgd_iter_30.caffemodel").unlink()
    solver = open_solver("sgd")
    with pytest.raises(SnapshotError, match=r"belongs to the weights 'sgd_iter_30.caffemodel', which are not there"):
        solver.restore("sgd_iter_30.solverstate")
    solver.close()


def test_a_state_given_as_weights(folder: Path) -> None:
    solver = open_solver("sgd")
    with pytest.raises(
        SnapshotError, match=r"expected a NetParameter.*or resume with -snapshot sgd_iter_30.solverstate"
    ):
        load_weights(solver.net, "sgd_iter_30.solverstate")
    solver.close()


def test_weights_of_another_net(folder: Path) -> None:
    solver = open_solver("sgd")
    other = parse_prototxt('layer { name: "elsewhere" blobs { shape { dim: 1 } data: 1 } }', NetParameter)
    write_binary("other.caffemodel", other)
    with pytest.raises(
        SnapshotError, match=r"holds weights for none of this net's layers; it has 'elsewhere', the net 'conv1'"
    ):
        load_weights(solver.net, "other.caffemodel")
    solver.close()


def test_weights_of_other_shapes(folder: Path) -> None:
    model = read_binary("init.caffemodel", NetParameter)
    layer = next(layer for layer in model.layer if layer.name == "ip2")
    layer.blobs[0].shape.dim[:] = [32, 10]
    write_binary("other.caffemodel", model)
    solver = open_solver("sgd")
    with pytest.raises(ShapeMismatchError, match=r"'ip2'.*\(10, 32\).*\(32, 10\)"):
        load_weights(solver.net, "other.caffemodel")
    solver.close()


def test_the_solvers_weights_field(folder: Path) -> None:
    parameter = read_solver("sgd.solver.prototxt")
    parameter.weights.append("sgd_iter_30.caffemodel,init.caffemodel")
    solver, plain = create_solver(parameter, backend=create_backend()), open_solver("sgd")
    load_weights(plain.net, "init.caffemodel")
    np.testing.assert_array_equal(solver.net.parameters.data.host(), plain.net.parameters.data.host())
    solver.close()
    plain.close()


def test_saved_weights_load_again(folder: Path) -> None:
    solver, other = open_solver("sgd_bn"), open_solver("sgd_bn")
    solver.step(2)
    save_weights(solver.net, "saved.caffemodel")
    load_weights(other.net, "saved.caffemodel")
    for name, blobs in solver.net.params.items():
        for mine, theirs in zip(blobs, other.net.params[name], strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)
    solver.close()
    other.close()


def test_a_snapshot_that_cannot_be_written_leaves_nothing(folder: Path) -> None:
    solver = open_solver("sgd")
    with pytest.raises(SnapshotError, match="cannot be written"):
        save_weights(solver.net, folder / "none" / "x.caffemodel")
    solver.close()
    assert not (folder / "none").exists()


def test_the_folder_of_a_prefix_is_tried_and_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for prefix in ("", "net", str(tmp_path / "net"), "./net"):
        check_writable(prefix)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SnapshotError, match=r"none: the folder.*snapshot_prefix: 'none/net'"):
        check_writable("none/net")


def test_a_list_of_weights() -> None:
    assert split_weights("a.caffemodel, b.caffemodel,") == ["a.caffemodel", "b.caffemodel"]
    assert split_weights(" ") == []
