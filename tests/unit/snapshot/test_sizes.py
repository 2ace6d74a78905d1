"""Binary snapshots end at 2 GiB: said before the first iteration, by numbers alone."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from paratrain.backends import create_backend
from paratrain.errors import SnapshotError
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, SolverParameter, parse_prototxt
from paratrain.snapshot import check_message_sizes, message_bytes, sizes
from paratrain.solvers import Solver, create_solver

NET = """
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 3 bias_term: false }
  param { name: "shared" } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 3 bias_term: false }
  param { name: "shared" } }
layer { name: "norm" type: "BatchNorm" bottom: "b" top: "b" }
layer { name: "loss" type: "Reduction" bottom: "b" top: "loss" loss_weight: 1 }
"""


def make_solver(folder: Path, settings: str = "", kind: str = "SGD") -> Solver:
    text = f'type: "{kind}" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 random_seed: 1 snapshot_prefix: "{folder}/n" {settings}'
    return create_solver(parse_prototxt(f"{text} net_param {{ {NET} }}", SolverParameter), backend=create_backend())


@pytest.mark.parametrize(("kind", "histories"), [("SGD", 1), ("Adam", 2)])
@pytest.mark.parametrize("write_diff", [False, True])
def test_the_bytes_are_nearly_those_of_the_files(tmp_path: Path, kind: str, histories: int, write_diff: bool) -> None:
    solver = make_solver(tmp_path, f"snapshot_diff: {str(write_diff).lower()}", kind)
    solver.snapshot()
    found = message_bytes(solver.net, histories, write_diff=write_diff)
    assert found == (4 * (9 + 9 + 7) * (2 if write_diff else 1), histories * 4 * (9 + 7))
    for suffix, size_bytes in zip(("caffemodel", "solverstate"), found, strict=True):
        assert 0 <= (tmp_path / f"n_iter_0.{suffix}").stat().st_size - size_bytes < 1000
    solver.close()


def test_a_large_net_is_refused_and_none_of_it_allocated() -> None:
    text = 'layer { name: "big" type: "Parameter" top: "big" parameter_param { shape { dim: 30000 dim: 20000 } } }'
    context = LayerContext(create_backend(), TRAIN, shapes_only=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    net = Net(parse_prototxt(f'name: "huge" {text}', NetParameter), context)
    with pytest.raises(SnapshotError) as raised:
        check_message_sizes(net, 1)
    assert str(raised.value).startswith(
        "network 'huge': a .caffemodel of it would hold 2,400,000,000 bytes, and in protobuf's binary format it has at most "
        "2,147,483,647"
    )
    assert "snapshot_format: HDF5" in str(raised.value)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 1_000_000_000


@pytest.mark.parametrize(
    ("limit_bytes", "kind", "settings", "refused"),
    [
        (99, "SGD", "", "caffemodel of it would hold 100 bytes"),
        (100, "SGD", "", None),
        (100, "Adam", "", "solverstate of it would hold 128 bytes"),
        (199, "SGD", "snapshot_diff: true", "caffemodel of it would hold 200 bytes"),
        (1, "SGD", "snapshot_format: HDF5", None),
        (1, "SGD", "snapshot_after_train: false", None),
    ],
)
def test_it_is_said_before_the_first_iteration(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit_bytes: int,
    kind: str,
    settings: str,
    refused: str | None,
) -> None:
    monkeypatch.setattr(sizes, "LARGEST_BYTES", limit_bytes)
    solver = make_solver(tmp_path, settings, kind)
    if refused is None:
        solver.solve()
    else:
        with pytest.raises(SnapshotError, match=refused):
            solver.solve()
        with pytest.raises(SnapshotError, match=refused):
            make_solver(tmp_path, f"{settings} snapshot: 1", kind)
    assert solver.iter == (2 if refused is None else 0)
    solver.close()
