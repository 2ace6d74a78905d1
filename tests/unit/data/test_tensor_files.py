"""Weights as npz and safetensors files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.data.tensor_files import Tensors, is_tensor_file, read_tensors, write_tensors
from paratrain.errors import MissingDependencyError, SnapshotError

pytest.importorskip("safetensors")

ENDINGS = ["npz", "safetensors"]


def _safetensors(path: Path, dtype: str, values: npt.NDArray[np.generic], name: str = "conv1/0") -> Path:
    """A file as another program writes it, from the format's definition: length, header, data."""
    header = json.dumps(
        {name: {"dtype": dtype, "shape": list(values.shape), "data_offsets": [0, values.nbytes]}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_value_shape_and_dtype_comes_back(ending: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    @settings(max_examples=25, deadline=None)
    @given(
        shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=3),
        dtype=st.sampled_from(["float16", "float32", "float64"]),
        layer=st.sampled_from(["conv1", "inception/3x3", "a.b", "Schicht 1"]),
    )
    def check(shapes: list[list[int]], dtype: str, layer: str) -> None:
        path = tmp_path / f"weights.{ending}"
        arrays = {index: random.normal(size=shape).astype(dtype) for index, shape in enumerate(shapes)}
        write_tensors(path, Tensors({layer: arrays}, 'name: "net"'))
        assert is_tensor_file(path)
        found = read_tensors(path)
        assert found.net == 'name: "net"' and list(found.layers) == [layer]
        assert sorted(found.layers[layer]) == sorted(arrays)
        for index, values in arrays.items():
            back = found.layers[layer][index]
            assert (back.dtype, back.shape, back.tobytes()) == (values.dtype, values.shape, values.tobytes())

    check()
    assert [path.name for path in tmp_path.iterdir()] == [f"weights.{ending}"]


def test_files_of_other_programs(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"conv1.weight": np.ones((2, 3)), "conv1.bias": np.zeros(2)})
    found = read_tensors(tmp_path / "a.npz")
    assert found.net == "" and {index: values.shape for index, values in found.layers["conv1"].items()} == {
        0: (2, 3),
        1: (2,),
    }
    values = np.array([[1.5, -2.0, 3.25]], np.float32)
    half = _safetensors(tmp_path / "b.safetensors", "BF16", values.astype(ml_dtypes.bfloat16))
    back = read_tensors(half).layers["conv1"][0]
    assert back.dtype == np.float32 and back.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"running_mean": np.ones(1)}, "'running_mean' names no parameter of a layer; expected 'LAYER/0'"),
        ({"a/0": np.ones(1), "a.weight": np.ones(1)}, "parameter 0 of layer 'a' is there twice"),
        ({"a/0": np.array(["x"])}, "'a/0' holds <U1, no numbers"),
    ],
)
def test_arrays_that_are_no_weights(arrays: dict[str, npt.NDArray[np.generic]], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SnapshotError, match=message):
        read_tensors(tmp_path / "a.npz")


def test_files_that_are_damaged(tmp_path: Path) -> None:
    for ending in ENDINGS:
        path = tmp_path / f"w.{ending}"
        write_tensors(path, Tensors({"a": {0: np.arange(1000.0)}}))
        data = path.read_bytes()
        for size in (5, len(data) // 2, len(data) - 3):
            path.write_bytes(data[:size])
            with pytest.raises(SnapshotError, match=f"w.{ending}: "):
                read_tensors(path)
    np.savez(tmp_path / "o.npz", **{"a/0": np.array([None])}, allow_pickle=True)
    with pytest.raises(SnapshotError, match="o.npz: cannot be read as npz"):
        read_tensors(tmp_path / "o.npz")
    with pytest.raises(SnapshotError, match="no such file"):
        read_tensors(tmp_path / "missing.npz")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for ending in ENDINGS:
        with pytest.raises(SnapshotError, match="the weights cannot be written"):
            write_tensors(tmp_path / "missing" / f"w.{ending}", Tensors({"a": {0: np.ones(1)}}))


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "w.safetensors", Tensors({"a": {0: np.ones(1)}}))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'paratrain[safetensors]'")):
        read_tensors(tmp_path / "w.safetensors")
