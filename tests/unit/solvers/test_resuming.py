"""Solver.restore: every type goes on bit for bit, with its policies, from both formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from paratrain.backends import create_backend
from paratrain.errors import SnapshotError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import SOLVERS, Solver, create_solver

NET = """
net_param {
  layer { name: "x" type: "DummyData" top: "x" top: "y"
    dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } data_filler { type: "gaussian" std: 1 } } }
  layer { name: "drop" type: "Dropout" bottom: "x" top: "x" }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
    inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
  layer { name: "norm" type: "BatchNorm" bottom: "ip" top: "ip" }
  layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
}
base_lr: 0.1 lr_policy: "fixed" random_seed: 5
"""
MOMENTUM = {"AdaGrad": "", "RMSProp": "rms_decay: 0.9", "AdaDelta": "momentum: 0.9 delta: 1e-6"}
PLATEAU = 'lr_policy: "plateau" gamma: 0.5 plateau_winsize: 2 plateau_winsize: 3 average_loss: 2'


def make_solver(folder: Path, kind: str, settings: str = "") -> Solver:
    parameter = parse_prototxt(NET, SolverParameter)
    text = f'type: "{kind}" snapshot_prefix: "{folder}/n" {MOMENTUM.get(kind, "momentum: 0.9")} {settings}'
    parameter.MergeFrom(parse_prototxt(text, SolverParameter))
    return create_solver(parameter, backend=create_backend())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, "") for kind in sorted(SOLVERS.names())),
        ("SGD", PLATEAU),
        ("SGD", "larc: true larc_turbo: true"),
        ("Adam", "snapshot_format: HDF5"),
        ("SGD", "iter_size: 3 clip_gradients: 0.1"),
    ],
)
def test_every_type_goes_on_bit_for_bit(tmp_path: Path, kind: str, settings: str) -> None:
    straight = make_solver(tmp_path, kind, settings)
    straight.step(4)
    straight.snapshot()
    straight.step(5)
    straight.snapshot()
    expected = {path: path.read_bytes() for path in tmp_path.glob("n_iter_9.*")}
    assert len(expected) == 3
    for path in expected:
        path.unlink()
    resumed = make_solver(tmp_path, kind, settings)
    resumed.restore(str(next(tmp_path.glob("n_iter_4.solverstate*"))))
    resumed.step(5)
    resumed.snapshot()
    for path, data in expected.items():
        assert path.read_bytes() == data, path.name
    straight.close()
    resumed.close()


def test_a_state_of_another_type_with_as_many_histories(tmp_path: Path) -> None:
    """SGD and AdaGrad keep as much of each parameter: the trainstate tells them apart."""
    solver, other = make_solver(tmp_path, "SGD"), make_solver(tmp_path, "AdaGrad")
    solver.step(1)
    solver.snapshot()
    with pytest.raises(
        SnapshotError, match=r"n_iter_1.trainstate: was written by a solver of type SGD; this one is AdaGrad"
    ):
        other.restore(f"{tmp_path}/n_iter_1.solverstate")
    assert other.iter == 0
    solver.close()
    other.close()
