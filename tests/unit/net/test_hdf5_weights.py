from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.errors import ShapeMismatchError, SnapshotError
from paratrain.snapshot import load_weights
from tests.unit.net.build import build as build_net

h5py = pytest.importorskip("h5py", reason="h5py is not installed (the extra 'hdf5')")


def build(*layers: str, seed: int = 1) -> Any:
    return build_net(*[f"layer {{ {layer} }}" for layer in layers], seed=seed)


INPUT = 'name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } }'


def product(name: str, bottom: str = "x", outputs: int = 4, extra: str = "") -> str:
    return (
        f'name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {extra} '
        f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} bias_filler {{ type: "uniform" }} }}'
    )


def test_the_layout_is_caffes(tmp_path: Path) -> None:
    net = build(INPUT, product("a"), product("block/b", "a"))
    for blobs in net.params.values():
        for blob in blobs:
            blob.diff[...] = 3
    net.save_hdf5(str(tmp_path / "w.h5"), write_diff=True)
    with h5py.File(tmp_path / "w.h5", "r") as file:
        assert sorted(file) == ["data", "diff"]
        assert sorted(file["data"]) == ["a", "block", "in"]
        assert sorted(file["data/a"]) == ["0", "1"]
        np.testing.assert_array_equal(file["data/a/0"], net.params["a"][0].data)
        np.testing.assert_array_equal(file["data/block/b/1"], net.params["block/b"][1].data)
        assert file["data/a/0"].dtype == np.float32
        assert (file["diff/a/1"][:] == 3).all()
    net.save_hdf5(str(tmp_path / "w.h5"))
    with h5py.File(tmp_path / "w.h5", "r") as file:
        assert sorted(file) == ["data"]
    assert [path.name for path in tmp_path.iterdir()] == ["w.h5"]


@pytest.mark.parametrize("method", ["load_hdf5", "copy_from", "load_weights"])
def test_weights_come_back(method: str, tmp_path: Path) -> None:
    path = str(tmp_path / "weights")  # what a file is shows in its first bytes, not in its name
    net, other = (build(INPUT, product("a"), product("block/b", "a"), seed=seed) for seed in (1, 2))
    net.save_hdf5(path)
    assert not np.array_equal(net.params["a"][0].data, other.params["a"][0].data)
    if method == "load_weights":
        load_weights(other, path)
    else:
        getattr(other, method)(path)
    for name in ("a", "block/b"):
        for mine, theirs in zip(net.params[name], other.params[name], strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)


def test_statistics_are_weights_too(tmp_path: Path) -> None:
    norm = 'name: "bn" type: "BatchNorm" bottom: "x" top: "bn"'
    net, other = build(INPUT, norm), build(INPUT, norm)
    net.params["bn"][1].data[...] = [1, 2, 3]
    net.save_hdf5(str(tmp_path / "w.h5"))
    other.load_hdf5(str(tmp_path / "w.h5"))
    assert other.params["bn"][1].data.tolist() == [1, 2, 3]


def test_shared_parameters_are_written_once(tmp_path: Path) -> None:
    shared = 'param { name: "w" } param { name: "b" }'
    layers = (INPUT, product("a", outputs=3, extra=shared), product("b", "a", outputs=3, extra=shared))
    net, other = (build(*layers, seed=seed) for seed in (1, 2))
    net.save_hdf5(str(tmp_path / "w.h5"))
    with h5py.File(tmp_path / "w.h5", "r") as file:
        assert sorted(file["data/a"]) == ["0", "1"]
        assert sorted(file["data/b"]) == []
    other.load_hdf5(str(tmp_path / "w.h5"))
    np.testing.assert_array_equal(other.params["b"][0].data, net.params["a"][0].data)
    alone = build(INPUT, product("b", outputs=3))
    net.save_hdf5(str(tmp_path / "w.h5"))
    before = alone.params["b"][0].data.copy()
    alone.load_hdf5(str(tmp_path / "w.h5"))
    np.testing.assert_array_equal(alone.params["b"][0].data, before)


def test_weights_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "w.h5")
    build(INPUT, product("a"), product("b", "a")).save_hdf5(path)
    net = build(INPUT, product("a"), product("b", "a", outputs=5))
    before = net.params["a"][0].data.copy()
    with pytest.raises(ShapeMismatchError, match=r"layer 'b' .*parameter 0 has shape \(5, 4\) in the net and \(4, 4\)"):
        net.load_hdf5(path)
    np.testing.assert_array_equal(net.params["a"][0].data, before)
    with h5py.File(path, "a") as file:
        del file["data/b/1"]
    with pytest.raises(SnapshotError, match="layer 'b' .*has 2 parameter blobs; .* numbered 0$"):
        net.load_hdf5(path)
    with pytest.raises(SnapshotError, match="none of this net's layers; it has 'a', 'b', the net 'other'"):
        load_weights(build(INPUT, product("other")), path)


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    net = build(INPUT, product("a"))
    with pytest.raises(SnapshotError, match="nowhere.h5: no such file"):
        net.load_hdf5(str(tmp_path / "nowhere.h5"))
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(SnapshotError, match="text.h5: is not an HDF5 file"):
        net.load_hdf5(str(tmp_path / "text.h5"))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["label"] = [1]
    with pytest.raises(SnapshotError, match="other.h5: has no group 'data', where weights lie; it has label"):
        net.copy_from(str(tmp_path / "other.h5"))
    with pytest.raises(SnapshotError, match="the weights cannot be written"):
        net.save_hdf5(str(tmp_path / "no_folder" / "w.h5"))
    assert not (tmp_path / "no_folder").exists()
