from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.errors import SnapshotError
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import (
    TRAIN,
    NetParameter,
    SolverState,
    array_to_blob,
    parse_prototxt,
    write_binary,
)
from paratrain.snapshot import SnapshotCopy, SnapshotKeeper, TrainingState, copy_weights, load_weights, shape_history
from paratrain.snapshot.names import SnapshotNames
from paratrain.snapshot.solverstate import read_state

NET = """
name: "shared"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.5 } } }
layer { name: "norm" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "c" type: "InnerProduct" bottom: "a" top: "c" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 } include { phase: TRAIN } loss_weight: 0 }
"""


def make_net(dtype: type[np.floating] = np.float32) -> Net:
    net = Net(parse_prototxt(NET, NetParameter), LayerContext(create_backend(), TRAIN, dtype=dtype, seed=3))
    net.parameters.diff.mutable_host()[...] = np.arange(net.parameters.diff.count)
    net.parameters.statistics.mutable_host()[...] = 2
    return net


def make_copy(net: Net, *, write_diff: bool = False) -> SnapshotCopy:
    history = [np.arange(net.parameters.count, dtype=np.float32), -np.arange(net.parameters.count, dtype=np.float32)]
    blobs = shape_history(net.parameters, history)
    return SnapshotCopy(
        net.name, copy_weights(net, write_diff), 7, 2, blobs, {"minimum_loss": 0.25, "iter_last_event": 4}
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("write_diff", [False, True])
def test_the_pieces_are_the_message_byte_for_byte(tmp_path: Path, write_diff: bool, dtype: type[np.floating]) -> None:
    net = make_net(dtype)
    copy, names = make_copy(net, write_diff=write_diff), SnapshotNames(str(tmp_path / "n"), 7)
    write_binary(tmp_path / "whole.caffemodel", net.to_proto(write_diff))
    net.parameters.data.mutable_host()[...] = 0  # the copy has its own values
    copy.write_model(names)
    assert Path(names.model).read_bytes() == (tmp_path / "whole.caffemodel").read_bytes()
    assert Path(names.model).stat().st_size <= copy.size_bytes


def test_the_state_is_the_message_byte_for_byte(tmp_path: Path) -> None:
    copy, names = make_copy(make_net()), SnapshotNames(str(tmp_path / "n"), 7)
    copy.write_state(names)
    expected = SolverState(iter=7, current_step=2, learned_net=names.model, minimum_loss=0.25, iter_last_event=4)
    for blob in copy.history:
        array_to_blob(blob, expected.history.add())
    assert Path(names.state).read_bytes() == expected.SerializeToString()
    assert len(expected.history) == 10  # weights, bias and the three statistics, twice
    saved = read_state(names.state)
    assert (saved.iteration, saved.current_step, saved.learned_net) == (7, 2, names.model)
    assert saved.policy == {"minimum_loss": 0.25, "iter_last_event": 4}


def test_hdf5_has_caffes_layout(tmp_path: Path) -> None:
    """Names, types and shapes as Caffe's hdf5_save functions write them; shared weights are there once."""
    net = make_net()
    copy, names = make_copy(net, write_diff=True), SnapshotNames(str(tmp_path / "n"), 7, hdf5=True)
    copy.write_model(names)
    copy.write_state(names)
    assert (names.model, names.state) == (f"{tmp_path}/n_iter_7.caffemodel.h5", f"{tmp_path}/n_iter_7.solverstate.h5")
    with h5py.File(names.model) as file:
        assert {name: sorted(group) for name, group in file["data"].items()} == {
            "x": [], "a": ["0", "1"], "norm": ["0", "1", "2"], "c": []
        }  # fmt: skip
        assert sorted(file["diff"]["c"]) == ["0", "1"]
        np.testing.assert_array_equal(file["data/a/0"], net.layers[1].blobs[0].data)
        assert file["data/a/0"].dtype == np.float32
    with h5py.File(names.state) as file:
        assert (file["iter"].dtype, file["iter"].shape, file["iter"][0]) == (np.int32, (1,), 7)
        assert (file["current_step"].dtype, file["current_step"].shape, file["current_step"][0]) == (np.int32, (1,), 2)
        kind = file["learned_net"].id.get_type()
        assert file["learned_net"].shape == ()
        assert (kind.is_variable_str(), kind.get_strpad()) == (False, h5py.h5t.STR_NULLTERM)
        assert kind.get_size() == len(names.model) + 1
        assert sorted(file["history"], key=int) == [str(index) for index in range(10)]
        np.testing.assert_array_equal(file["history/0"], copy.history[0])
    saved = read_state(names.state)
    assert (saved.iteration, saved.current_step, saved.learned_net) == (7, 2, names.model)
    for found, expected in zip(saved.history, copy.history, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_hdf5_files_given_the_wrong_way_round(tmp_path: Path) -> None:
    net = make_net()
    copy, names = make_copy(net), SnapshotNames(str(tmp_path / "n"), 7, hdf5=True)
    copy.write_model(names)
    copy.write_state(names)
    with pytest.raises(SnapshotError, match=r"it is a solver state; .*resume with -snapshot .*n_iter_7.solverstate.h5"):
        load_weights(net, names.state)
    with pytest.raises(SnapshotError, match=r"expected a solver state.*start from these weights with -weights"):
        read_state(names.model)
    whole = Path(names.state).read_bytes()
    Path(names.state).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SnapshotError, match=r"n_iter_7.solverstate.h5: "):
        read_state(names.state)


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = make_copy(make_net())
    free = copy.size_bytes - 1
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: type("Usage", (), {"free": free}))
    keeper = SnapshotKeeper(f"{tmp_path}/n")
    with pytest.raises(SnapshotError, match=rf"a snapshot needs {copy.size_bytes:,} bytes, and {free:,} are free"):
        keeper.begin(copy, TrainingState(7, 3, 1, 1, []))
    keeper.wait()
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_the_background_is_raised_later(tmp_path: Path) -> None:
    keeper = SnapshotKeeper(f"{tmp_path}/n")
    (tmp_path / "n_iter_7.solverstate").mkdir()  # nothing can be renamed over it
    keeper.begin(make_copy(make_net()), TrainingState(7, 3, 1, 1, []))
    with pytest.raises(SnapshotError, match=r"n_iter_7.solverstate: cannot be written"):
        keeper.wait()
    keeper.wait()  # it is told once
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n_iter_7.caffemodel", "n_iter_7.solverstate"]
