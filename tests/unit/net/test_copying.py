"""Fine-tuning: which layers' weights are taken, under which name, and the table of it in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from paratrain.errors import ShapeMismatchError, SnapshotError
from paratrain.net import CopyRules, Net
from paratrain.snapshot import load_all_weights
from tests.unit.net.build import DATA, build, inner_product


def chain(*names: str, seed: int = 1, last: int = 2) -> Net:
    """A net of InnerProducts of 4 outputs and, at the end, ``last``."""
    layers = [
        inner_product(name, names[i - 1] if i else "data", name, last if i == len(names) - 1 else 4)
        for i, name in enumerate(names)
    ]
    return build(DATA, *layers, seed=seed)


def table(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Layer and fate of each row in the log."""
    rows = [record.getMessage().split() for record in caplog.records if record.getMessage().startswith("    ")]
    return [(row[0], row[1]) for row in rows if row[1] in ("taken", "left", "kept")]


@pytest.fixture(params=["caffemodel", "h5"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "h5":
        pytest.importorskip("h5py", reason="h5py is not installed (the extra 'hdf5')")
    return str(request.param)


def save(net: Net, path: Path) -> str:
    if path.suffix == ".h5":
        net.save_hdf5(str(path))
    else:
        net.save(str(path))
    return str(path)


def test_a_layer_goes_to_another_name(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """And the layer of the file that has this name stays out."""
    source, target = chain("a", "b", "c"), chain("a", "x", "b", seed=2)
    before = target.params["b"][0].data.copy()
    with caplog.at_level(logging.INFO):
        load_all_weights(target, [save(source, tmp_path / f"w.{kind}")], CopyRules({"b": "x"}))
    np.testing.assert_array_equal(target.params["a"][0].data, source.params["a"][0].data)
    np.testing.assert_array_equal(target.params["x"][0].data, source.params["b"][0].data)
    np.testing.assert_array_equal(target.params["b"][0].data, before)
    assert table(caplog) == [("a", "taken"), ("b", "taken"), ("c", "left"), ("b", "kept")]


def test_a_layer_that_another_is_renamed_to_is_left(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = chain("a", "b", "c", last=4), chain("a", "b", seed=2, last=4)
    with caplog.at_level(logging.INFO):
        load_all_weights(target, [save(source, tmp_path / f"w.{kind}")], CopyRules({"c": "b"}))
    np.testing.assert_array_equal(target.params["b"][0].data, source.params["c"][0].data)
    assert table(caplog) == [("a", "taken"), ("b", "left"), ("c", "taken")]
    assert any("'c' is renamed to it" in record.getMessage() for record in caplog.records)


def test_other_shapes_are_an_error_unless_they_may_be_left_out(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = chain("a", "b", last=5), chain("a", "b", seed=2)
    path, before = save(source, tmp_path / f"w.{kind}"), target.parameters.data.host().copy()
    with pytest.raises(ShapeMismatchError, match="leave out what does not fit by --allow-mismatch"):
        load_all_weights(target, [path], CopyRules())
    np.testing.assert_array_equal(target.parameters.data.host(), before)
    with caplog.at_level(logging.INFO):
        load_all_weights(target, [path], CopyRules(allow_mismatch=True))
    np.testing.assert_array_equal(target.params["a"][0].data, source.params["a"][0].data)
    assert table(caplog) == [("a", "taken"), ("b", "left"), ("b", "kept")]


def test_a_renamed_layer_may_be_in_any_of_several_files(tmp_path: Path) -> None:
    first, second, target = chain("a", "b"), chain("c", seed=3, last=4), chain("x", "b", seed=2)
    paths = [save(first, tmp_path / "1.caffemodel"), save(second, tmp_path / "2.caffemodel")]
    load_all_weights(target, paths, CopyRules({"c": "x"}))
    np.testing.assert_array_equal(target.params["x"][0].data, second.params["c"][0].data)
    np.testing.assert_array_equal(target.params["b"][0].data, first.params["b"][0].data)


@pytest.mark.parametrize(
    ("renames", "message"),
    [
        ({"nothing": "a"}, "--rename nothing:a: the weights have no layer 'nothing'; known: a, b"),
        ({"a": "nothing"}, "--rename a:nothing: the network has no layer 'nothing'; known: a, b"),
    ],
)
def test_names_that_nobody_has(tmp_path: Path, renames: dict[str, str], message: str) -> None:
    net = chain("a", "b")
    with pytest.raises(SnapshotError) as raised:
        load_all_weights(net, [save(net, tmp_path / "w.caffemodel")], CopyRules(renames))
    assert message in str(raised.value)
