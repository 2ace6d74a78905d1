"""``paratrain upgrade_net`` and ``upgrade_solver``: old files in, what Caffe makes of them out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from paratrain.proto import (
    NetParameter,
    SolverParameter,
    array_to_blob,
    blob_to_array,
    parse_prototxt,
    read_binary,
    read_prototxt,
    write_binary,
)
from tests.integration.cli import error
from tests.integration.cli import paratrain_here as run
from tests.paths import GOLDEN


@pytest.mark.parametrize("name", ["v0_lenet_train", "v1_lenet_train_test"])
def test_old_networks_become_what_caffe_makes_of_them(name: str, tmp_path: Path) -> None:
    source, expected = (GOLDEN / "upgrade" / f"{name}{ending}" for ending in (".prototxt", ".upgraded.prototxt"))
    done = run(tmp_path, "upgrade_net", str(source), "new.prototxt")
    assert done.returncode == 0, done.stderr
    assert "'layers' (V1, 2014) instead of 'layer'; upgraded" in done.stdout
    assert "written to new.prototxt" in done.stdout
    assert read_prototxt(tmp_path / "new.prototxt", NetParameter) == read_prototxt(expected, NetParameter)
    again = run(tmp_path, "upgrade_net", "new.prototxt", "newer.prototxt")
    assert "nothing to upgrade" in again.stdout
    assert (tmp_path / "newer.prototxt").read_bytes() == (tmp_path / "new.prototxt").read_bytes()


def test_a_binary_file_stays_binary_and_keeps_its_weights(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    old = parse_prototxt('layers { name: "ip" type: INNER_PRODUCT blobs_lr: 3 }', NetParameter)
    old.layers[0].blobs.append(array_to_blob(weights))
    write_binary(tmp_path / "old.caffemodel", old)
    assert run(tmp_path, "upgrade_net", "old.caffemodel", "new.caffemodel").returncode == 0
    new = read_binary(tmp_path / "new.caffemodel", NetParameter)
    [layer] = new.layer
    assert (layer.name, layer.type, layer.param[0].lr_mult) == ("ip", "InnerProduct", 3)
    np.testing.assert_array_equal(blob_to_array(layer.blobs[0]), weights)
    assert not new.layers


def test_old_solvers(tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text('net: "x"  # a comment\nsolver_type: NESTEROV base_lr: 0.01\n')
    done = run(tmp_path, "upgrade_solver", "old.prototxt", "new.prototxt")
    assert 'old.prototxt: solver_type is deprecated; it is read as type: "Nesterov"' in done.stdout
    expected = SolverParameter(net="x", type="Nesterov", base_lr=0.01)
    assert read_prototxt(tmp_path / "new.prototxt", SolverParameter) == expected


def test_a_file_is_replaced_only_where_that_is_said(tmp_path: Path) -> None:
    old = "solver_type: ADAM\n"
    (tmp_path / "old.prototxt").write_text(old)
    (tmp_path / "link.prototxt").symlink_to("old.prototxt")
    for other in ("./old.prototxt", "link.prototxt", str(tmp_path / "old.prototxt")):
        assert "is the same file as old.prototxt" in error(run(tmp_path, "upgrade_solver", "old.prototxt", other))
        assert (tmp_path / "old.prototxt").read_text() == old
    assert run(tmp_path, "upgrade_solver", "old.prototxt", "old.prototxt").returncode == 0
    assert (tmp_path / "old.prototxt").read_text() == 'type: "Adam"\n'


@pytest.mark.parametrize(
    ("verb", "text", "part"),
    [
        ("upgrade_net", 'layers { layer { name: "a" type: "nonsense" } }', "no V0 layer type 'nonsense'"),
        ("upgrade_net", 'layer { name: "a" } layers { name: "b" }', "both 'layer' and the old 'layers'"),
        ("upgrade_net", "laier { }", "did you mean 'layer'"),
        ("upgrade_solver", 'type: "SGD" solver_type: ADAM', "both type"),
        ("upgrade_solver", "", "the file is empty"),
    ],
)
def test_what_cannot_be_upgraded_leaves_no_file(verb: str, text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text(text)
    message = error(run(tmp_path, verb, "old", "new"))
    assert message.startswith("old:")
    assert part in message
    assert os.listdir(tmp_path) == ["old"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("solver_type: ADAM")
    assert "no/new: cannot be written" in error(run(tmp_path, "upgrade_solver", "old", "no/new"))
    assert "none: no such file" in error(run(tmp_path, "upgrade_solver", "none", "new"))
