"""The interface that scripts written for pycaffe use."""

from __future__ import annotations

import gc
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

import paratrain as caffe
from paratrain.errors import DataError, NetError, PrototxtError, SolverError

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "relu" include { stage: "deep" } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 5 snapshot_after_train: false
snapshot_prefix: "small" solver_mode: CPU random_seed: 1 test_iter: 1 test_interval: 100 test_initialization: false
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("paratrain.pycaffe._choices.seed", None)
    return tmp_path


def feed(net: caffe.Net) -> None:
    net.blobs["data"].data[...] = np.arange(12).reshape(4, 3) / 10
    net.blobs["label"].data[...] = [0, 1, 0, 1]


def test_a_net_of_each_phase_stage_and_spelling(folder: Path) -> None:
    train = caffe.Net("net.prototxt", caffe.TRAIN)
    assert "accuracy" not in train.blobs
    assert "accuracy" in caffe.Net("net.prototxt", caffe.TEST).blobs
    assert "relu" in caffe.Net("net.prototxt", caffe.TRAIN, stages=["deep"]).blobs
    train.save("w.caffemodel")
    for net in (
        caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel"),
        caffe.Net("net.prototxt", "w.caffemodel", caffe.TEST),
        caffe.Net(folder / "net.prototxt", phase=caffe.TEST, weights=folder / "w.caffemodel"),
    ):
        np.testing.assert_array_equal(net.params["ip"][0].data, train.params["ip"][0].data)
    with pytest.raises(TypeError, match="phase is missing"):
        caffe.Net("net.prototxt")


def test_blobs_and_parameters_are_arrays_that_alias() -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    feed(net)
    net.params["ip"][0].data[...] = [[1, 0, 0], [0, 1, 0]]
    net.params["ip"][1].data[...] = 0
    out = net.forward()
    assert sorted(out) == ["accuracy", "loss"]
    np.testing.assert_allclose(net.blobs["ip"].data, net.blobs["data"].data[:, :2])
    assert float(out["accuracy"]) == 0.5
    assert [layer.type for layer in net.layers][-1] == "SoftmaxWithLoss"
    assert list(net.params) == ["ip"]
    assert net._layer_names[0] == "data"
    assert net.layer_dict["ip"].blobs[1].shape == (2,)


def test_every_blob_keeps_its_value_after_forward() -> None:
    net = caffe.Net("net.prototxt", caffe.TRAIN, stages=["deep"])
    feed(net)
    net.forward()
    before = {name: blob.data.copy() for name, blob in net.blobs.items()}
    net.backward()
    for name, blob in net.blobs.items():
        np.testing.assert_array_equal(blob.data, before[name])
    assert before["ip"].any()


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights() -> np.ndarray:  # type: ignore[type-arg]
        return caffe.Net("net.prototxt", caffe.TRAIN).params["ip"][0].data.copy()

    assert (weights() != weights()).any()
    caffe.set_random_seed(5)
    first, second = weights(), weights()
    caffe.set_random_seed(6)
    np.testing.assert_array_equal(first, second)
    assert (first != weights()).any()


def test_a_solver_steps_and_learns() -> None:
    solver = caffe.get_solver("solver.prototxt")
    feed(solver.net)
    losses = []
    for _ in range(20):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert solver.iter == 20
    assert losses[-1] < losses[0]
    assert len(solver.test_nets) == 1


def test_callbacks_are_called_around_the_gradient() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    feed(solver.net)
    seen = []
    weights = solver.net.params["ip"][0]
    solver.add_callback(
        lambda: seen.append(("start", bool(weights.diff.any()), weights.data.copy())),
        lambda: seen.append(("ready", bool(weights.diff.any()), weights.data.copy())),
    )
    solver.step(2)
    assert [(name, has_gradient) for name, has_gradient, _ in seen] == [("start", False), ("ready", True)] * 2
    np.testing.assert_array_equal(seen[0][2], seen[1][2])
    assert (seen[2][2] != seen[0][2]).any()


def test_solve_snapshot_and_restore(folder: Path) -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    feed(solver.net)
    solver.step(3)
    solver.snapshot()
    solver.step(2)
    expected = solver.net.params["ip"][0].data.copy()
    again = caffe.SGDSolver("solver.prototxt")
    feed(again.net)
    again.restore("small_iter_3.solverstate")
    assert again.iter == 3
    again.solve()
    assert again.iter == 5
    np.testing.assert_array_equal(again.net.params["ip"][0].data, expected)


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_each_of_pycaffes_solvers(folder: Path, kind: str) -> None:
    (folder / "solver.prototxt").write_text(SOLVER.replace("momentum: 0.9", "") + f'type: "{kind}"')
    assert type(getattr(caffe, f"{kind}Solver")("solver.prototxt")).__name__ == f"{kind}Solver"


def test_a_solver_of_another_type_is_not_an_sgd_solver(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER + 'type: "Adam"')
    with pytest.raises(SolverError, match="type is 'Adam', not 'SGD'"):
        caffe.SGDSolver("solver.prototxt")


def test_missing_and_wrong_files_say_so(folder: Path) -> None:
    with pytest.raises(PrototxtError, match=r"nowhere.prototxt.*"):
        caffe.Net("nowhere.prototxt", caffe.TEST)
    (folder / "bad.prototxt").write_text('layer { name: "a" type: "Relu" bottom: "x" top: "y" }')
    with pytest.raises(NetError, match="'x'"):
        caffe.Net("bad.prototxt", caffe.TEST)


def test_gpu_mode_warns_and_goes_on() -> None:
    caffe.set_mode_cpu()
    with pytest.warns(UserWarning, match="computes on the CPU only"):
        caffe.set_mode_gpu()
    with pytest.warns(UserWarning, match=r"set_device\(0\)"):
        caffe.set_device(0)


def test_layer_types_and_ranks() -> None:
    assert {"Convolution", "SoftmaxWithLoss", "Data"} <= set(caffe.layer_type_list())
    assert (caffe.solver_rank(), caffe.solver_count(), caffe.root_solver()) == (0, 1, True)


def test_arrays_are_given_to_a_memory_data_layer(folder: Path) -> None:
    (folder / "memory.prototxt").write_text(
        'layer { name: "data" type: "MemoryData" top: "data" top: "label" '
        "memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } }"
    )
    net = caffe.Net("memory.prototxt", caffe.TEST)
    samples, labels = np.arange(24, dtype=np.float32).reshape(4, 1, 2, 3), np.arange(4, dtype=np.float32)
    with pytest.raises(DataError, match=r"give them by net.set_input_arrays\(data, labels\) first"):
        net.forward()
    net.set_input_arrays(samples, labels)
    for start in (0, 2, 0):
        out = net.forward()
        np.testing.assert_array_equal(out["data"], samples[start : start + 2])
        np.testing.assert_array_equal(out["label"], labels[start : start + 2])
    with pytest.raises(NetError, match="this net has none"):
        caffe.Net("net.prototxt", caffe.TEST).set_input_arrays(samples, labels)


def test_a_phase_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no phase 7"):
        caffe.Net("net.prototxt", 7)


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
