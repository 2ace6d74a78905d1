"""Solver.restore: every type goes on bit for bit, with its policies, from both formats."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.comm.communicator import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.errors import SnapshotError
from paratrain.net import Net
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.snapshot.carried import read_carried
from paratrain.solvers import SOLVERS, Action, Solver, create_solver

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


@pytest.mark.parametrize("after_train", ["true", "false"])
def test_a_snapshot_within_the_last_test_is_that_of_the_last_step(tmp_path: Path, after_train: str) -> None:
    """The pass that is displayed before that test takes a batch, and moves BatchNorm's statistics, after the last step."""
    tests = "test_iter: 2 test_interval: 3 test_initialization: false display: 3 max_iter: 3"
    solver = make_solver(tmp_path, "SGD", f"{tests} snapshot_after_train: {after_train}")
    asked = []

    def ask() -> Action:
        if solver.iter == 3:
            asked.append(solver.iter)
            return Action.SNAPSHOT
        return Action.NONE

    solver.action_function = ask
    solver.solve()
    assert asked
    found = {path.name: path.read_bytes() for path in tmp_path.glob("n_iter_3.*")}
    assert len(found) == 3
    solver.close()
    again = make_solver(tmp_path, "SGD", tests)
    again.step(3)
    again.snapshot()
    again.close()
    expected = {path.name: path.read_bytes() for path in tmp_path.glob("n_iter_3.*")}
    state, model, training = (f"n_iter_3.{kind}" for kind in ("solverstate", "caffemodel", "trainstate"))
    assert found[state] == expected[state]
    assert json.loads(found[training])["data"] == json.loads(expected[training])["data"]
    if after_train == "true":
        assert found[model] == expected[model]


RECURRENT = """
net_param {{
  layer {{ name: "x" type: "DummyData" top: "x" top: "y"
    dummy_data_param {{ shape {{ dim: 3 dim: {streams} dim: 4 }} shape {{ dim: 3 dim: {streams} dim: 2 }}
      data_filler {{ type: "gaussian" std: 1 }} }} }}
  layer {{ name: "cont" type: "DummyData" top: "cont"
    dummy_data_param {{ shape {{ dim: 3 dim: {streams} }} data_filler {{ type: "constant" value: 1 }} }} }}
  layer {{ name: "a/memory" type: "{kind}" bottom: "x" bottom: "cont" top: "h"
    recurrent_param {{ num_output: 2 weight_filler {{ type: "uniform" min: -0.5 max: 0.5 }} }} }}
  layer {{ name: "loss" type: "EuclideanLoss" bottom: "h" bottom: "y" top: "loss" }}
}}
base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 5 test_iter: 3 test_interval: 2 test_initialization: false
snapshot_prefix: "{folder}/n" {settings}
"""


def on_ranks(
    size: int, folder: Path, run: Callable[[Solver], Any], kind: str = "LSTM", streams: int = 2, settings: str = ""
) -> list[Any]:
    text = RECURRENT.format(streams=streams, kind=kind, folder=folder, settings=settings)

    def main(communicator: Communicator) -> Any:
        solver = create_parallel_solver(parse_prototxt(text, SolverParameter), communicator)
        try:
            return run(solver)
        finally:
            solver.close()

    return run_threads(size, main)


def states(solver: Solver, net: Net | None = None) -> list[list[float]]:
    return [blob.data.reshape(-1).tolist() for layer in (net or solver.net).layers for blob in layer.carried_blobs()]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
@pytest.mark.parametrize("settings", ["", "snapshot_format: HDF5"])
def test_what_layers_carry_from_batch_to_batch_goes_on(tmp_path: Path, size: int, kind: str, settings: str) -> None:
    """Of every rank in training, and of the root's tests, which have a layer of their own."""

    def straight(solver: Solver) -> tuple[list[list[float]], list[list[float]]]:
        solver.step(3)
        solver.snapshot()
        at_snapshot = states(solver)
        solver.step(4)
        solver.snapshot()
        return at_snapshot, [*states(solver), *(values for net in solver.test_nets for values in states(solver, net))]

    ends = on_ranks(size, tmp_path, straight, kind, settings=settings)
    assert len({repr(end[0]) for end in ends}) == size  # ranks have different records
    assert all(any(values) for end in ends for values in end[0])
    expected = {path: path.read_bytes() for path in tmp_path.glob("n_iter_7.*")}
    assert len(expected) == 4
    for path in expected:
        path.unlink()

    def resumed(solver: Solver) -> tuple[list[list[float]], list[list[float]]]:
        solver.restore(str(next(tmp_path.glob("n_iter_3.solverstate*"))))
        at_snapshot = states(solver)
        solver.step(4)
        solver.snapshot()
        return at_snapshot, [*states(solver), *(values for net in solver.test_nets for values in states(solver, net))]

    assert on_ranks(size, tmp_path, resumed, kind, settings=settings) == ends
    for path, data in expected.items():
        assert path.read_bytes() == data, path.name


def step_and_snapshot(solver: Solver) -> None:
    solver.step(2)
    solver.snapshot()


def restored_states(solver: Solver) -> list[list[float]]:
    solver.step(1)
    solver.restore(str(Path(solver.parameter.snapshot_prefix + "_iter_2.solverstate")))
    return states(solver)


@pytest.mark.parametrize(
    ("size", "streams", "reason"),
    [
        (2, 2, "it belongs to the batches of 2 ranks, and those of 1 are others"),
        (1, 4, "it belongs to batches of another size, or to other layers"),
    ],
)
def test_where_batches_are_others_they_begin_with_zeros(
    tmp_path: Path, size: int, streams: int, reason: str, log_lines: list[str]
) -> None:
    on_ranks(size, tmp_path, step_and_snapshot)
    [found] = on_ranks(1, tmp_path, restored_states, streams=streams)
    assert len(found) == 2
    assert not any(any(values) for values in found)
    begins = "Layer 'a/memory': what it takes over from batch to batch begins with zeros: "
    assert [line for line in log_lines if line.startswith(begins)] == [begins + reason]


def test_a_snapshot_from_before_they_were_kept(tmp_path: Path, log_lines: list[str]) -> None:
    on_ranks(1, tmp_path, step_and_snapshot)
    (tmp_path / "n_iter_2.carried.npz").unlink()
    trainstate = tmp_path / "n_iter_2.trainstate"
    contents = json.loads(trainstate.read_text())
    assert contents["files"].pop("n_iter_2.carried.npz")
    trainstate.write_text(json.dumps(contents))
    [found] = on_ranks(1, tmp_path, restored_states)
    assert not any(any(values) for values in found)
    assert any(line.endswith("begins with zeros: the snapshot does not hold it") for line in log_lines)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def test_a_file_of_states_that_is_missing_or_damaged(tmp_path: Path) -> None:
    on_ranks(1, tmp_path, step_and_snapshot)
    carried = tmp_path / "n_iter_2.carried.npz"
    data = carried.read_bytes()
    damaged = (data[: len(data) // 2], data[:-1] + bytes([data[-1] ^ 1]), None)
    for content, expected in zip(damaged, ("holds .* bytes", "checksum", "not there"), strict=True):
        if content is None:
            carried.unlink()
        else:
            carried.write_bytes(content)
        with pytest.raises(SnapshotError, match=f"n_iter_2.carried.npz: .*{expected}"):
            on_ranks(1, tmp_path, restored_states)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        b"PK\x03\x04 cut",
        npy(np.zeros(3)),
        npz(one=np.array(["text"])),
        npz(one=np.zeros(2, "i4")),
    ],
)
def test_a_file_of_states_that_is_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.carried.npz").write_bytes(content)
    with pytest.raises(SnapshotError, match=r"x.carried.npz: is damaged"):
        read_carried(tmp_path / "x.carried.npz")


def test_a_skipped_step_does_not_leave_its_state_behind(tmp_path: Path) -> None:
    """0 times a number that is not finite is none either: all later steps would be spoilt."""

    def run(solver: Solver) -> list[list[float]]:
        solver.sentinel.mode = "skip"
        solver.step(2)
        before = states(solver)
        x = solver.net.blobs["x"]
        forward = solver.net.layers[0].forward

        def spoilt(bottom: Any, top: Any) -> None:
            forward(bottom, top)
            x.data[0, 0, 0] = np.nan

        solver.net.layers[0].forward = spoilt  # type: ignore[method-assign]
        solver.step(1)
        assert states(solver) == before
        solver.net.layers[0].forward = forward  # type: ignore[method-assign]
        solver.step(1)
        return states(solver)

    for found in on_ranks(1, tmp_path, run):
        assert np.isfinite(found).all()


def test_old_snapshots_go_with_their_states(tmp_path: Path) -> None:
    def run(solver: Solver) -> None:
        solver.keeper.keep = 1
        solver.step(3)
        solver.keeper.wait()

    on_ranks(1, tmp_path, run, settings="snapshot: 1")
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"n_iter_3"}


USER_LAYER = """
import paratrain
class Count(paratrain.Layer):
    def setup(self, bottom, top):
        self.carried_blobs.add_blob(1)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        self.carried_blobs[0].data[0] += 1 + self.rank
        top[0].data[...] = bottom[0].data * self.carried_blobs[0].data[0]
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff * self.carried_blobs[0].data[0]
"""


def test_a_python_layer_may_carry_blobs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counting_layer.py").write_text(USER_LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    layer = 'name: "drop" type: "Python" bottom: "x" top: "counted" python_param { module: "counting_layer" layer: "Count" }'
    text = NET.replace('name: "drop" type: "Dropout" bottom: "x" top: "x"', layer)
    parameter = parse_prototxt(f'{text} snapshot_prefix: "{tmp_path}/n"', SolverParameter)

    def main(communicator: Communicator) -> list[list[float]]:
        solver = create_parallel_solver(parameter, communicator)
        solver.step(2)
        solver.snapshot()
        solver.step(1)
        solver.restore(str(tmp_path / "n_iter_2.solverstate"))
        solver.close()
        return states(solver)

    assert run_threads(2, main) == [[[2.0]], [[4.0]]]
