"""Steps whose loss or gradient is not finite: found, named, and survived together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends.finite import is_finite, without_warnings
from paratrain.comm.communicator import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.errors import DeviceFullError, NotFiniteError, SpoiltParametersError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver
from paratrain.solvers.display import SmoothedLoss
from tests.unit.solvers.least_squares import NET, weights, write_records

SETTINGS = "base_lr: 0.01 max_iter: 6 random_seed: 3 snapshot_after_train: false "
NAN = float("nan")


def records(folder: Path, bad: dict[int, Sequence[float]], labels: dict[int, int] | None = None) -> Path:
    rng = np.random.default_rng(7)
    inputs = rng.normal(size=(24, 3))
    for index, row in bad.items():
        inputs[index] = row
    return write_records(folder, inputs, [(labels or {}).get(i, i % 3) for i in range(24)])


def on_ranks(size: int, source: Path, extra: str, run: Callable[[Solver], object], net: str = NET) -> list[Any]:
    policy = "" if "lr_policy" in extra else 'lr_policy: "fixed"'
    text = net.format(source=source, batch_size=2, start=0.0, bias="true", params="")
    parameter = parse_prototxt(f"{SETTINGS} {policy} {extra} net_param {{ {text} }}", SolverParameter)

    def main(communicator: Communicator) -> object:
        solver = create_parallel_solver(parameter, communicator)
        try:
            return run(solver)
        finally:
            solver.close()

    return run_threads(size, main)


def stopped(solver: Solver) -> tuple[str, int, list[float]]:
    with pytest.raises(NotFiniteError) as raised:
        solver.step(6)
    return str(raised.value), solver.iter, weights(solver)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_bad_record_of_one_rank_stops_all_and_is_named(tmp_path: Path, size: int) -> None:
    source = records(tmp_path, {7: [0.0, NAN, 0.0]})
    ends = on_ranks(size, source, "", stopped)
    messages = [end[0] for end in ends]
    assert len(set(messages)) == 1
    iteration, rank = {1: (3, 0), 2: (1, 1), 3: (1, 1)}[size]
    where = f"iteration {iteration}" + (f" on rank {rank} of {size}" if size > 1 else "")
    assert messages[0].startswith(f"{where}: the loss is nan; the first that is not finite is blob 'x', made by layer ")
    assert "layer 'records' (Data), 1 of 6 values (of the records 00000007)" in messages[0]
    assert "layer 'records' read the records 0" in messages[0]
    for end in ends:
        assert end[1] == iteration
    assert all(math.isfinite(value) for value in ends[0][2])


def test_the_records_of_the_right_pass_are_named(tmp_path: Path) -> None:
    """Of several passes in an iteration, whose later ones are run before anything is decided."""
    source = records(tmp_path, {3: [NAN, 0.0, 0.0]})
    [(message, _, _)] = on_ranks(1, source, "iter_size: 4", stopped)
    assert "layer 'records' read the records 00000002, 00000003." in message


def test_a_gradient_that_overflows_is_traced_to_its_layer(tmp_path: Path) -> None:
    source = records(tmp_path, {1: [1e38, 0.0, 0.0]}, {1: 100})
    for size, rank in ((1, 0), (2, 1)):
        with np.errstate(over="ignore"):
            message, _, _ = on_ranks(size, source, "", stopped)[0]
        assert "the gradient is not finite; the first that is not finite is gradient of parameter line[0]" in message
        assert "layer 'line' (InnerProduct), 1 of 3 values" in message
        assert (f"on rank {rank} of 2" in message) == (size == 2)


@pytest.mark.parametrize(("record", "label", "what"), [(NAN, 0, "the loss is nan"), (1e38, 100, "the gradient is not")])
def test_memory_that_is_too_short_for_looking_hides_nothing_else(
    tmp_path: Path, record: float, label: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = DeviceFullError("GPU 0 is full", wanted_bytes=1, free_bytes=0, used_bytes=1)
    monkeypatch.setattr("paratrain.solvers.sentinel._finite", raising(full))
    source = records(tmp_path, {1: [record, 0.0, 0.0]}, {1: label})
    with np.errstate(over="ignore"):
        message, _, _ = on_ranks(1, source, "", stopped)[0]
    assert what in message
    assert "the first that is not finite is not known, since memory is too short to look for it; layer 'rec" in message


def raising(error: Exception) -> Callable[[Any], bool]:
    def fail(_: Any) -> bool:
        raise error

    return fail


def test_parameters_that_are_not_finite_are_named(tmp_path: Path) -> None:
    def run(solver: Solver) -> tuple[str, int, list[float]]:
        solver.step(1)
        solver.net.params["line"][0].data[0, 1] = NAN
        return stopped(solver)

    [(message, _, _)] = on_ranks(1, records(tmp_path, {}), "", run)
    assert "parameter line[0] of layer 'line' (InnerProduct), 1 of 3 values" in message


@pytest.mark.parametrize("size", [1, 2])
def test_skipping_leaves_out_that_step_alone(tmp_path: Path, size: int, log_lines: list[str]) -> None:
    source = records(tmp_path, {7: [0.0, NAN, 0.0]})
    bad = {1: 3, 2: 1}[size]

    def run(solver: Solver) -> list[list[float]]:
        solver.sentinel.mode = "skip"
        seen = []
        for _ in range(6):
            solver.step(1)
            seen.append(weights(solver))
        return seen

    for seen in on_ranks(size, source, "display: 1 average_loss: 3", run):
        assert isinstance(seen, list)
        assert all(math.isfinite(value) for value in seen[-1])
        assert [step for step in range(1, 6) if seen[step] == seen[step - 1]] == [bad]
    [warning] = [line for line in log_lines if "is skipped" in line]
    assert warning.startswith(f"Iteration {bad} is skipped" + (" on rank 1 of 2: " if size == 2 else ": "))
    assert "00000007" in warning
    shown = [line.rsplit(" ", 1)[1] for line in log_lines if " iters), loss = " in line]
    assert [iteration for iteration, loss in enumerate(shown) if loss == "nan"] == [bad]


def test_running_statistics_of_a_skipped_step_are_taken_back(tmp_path: Path) -> None:
    source = records(tmp_path, {5: [0.0, NAN, 0.0]})
    net = NET.replace(
        'layer {{ name: "line"', 'layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "x" }} layer {{ name: "line"'
    )

    def run(solver: Solver) -> list[float]:
        solver.sentinel.mode = "skip"
        solver.step(6)
        return [float(value) for value in solver.net.parameters.statistics.host()]

    for statistics in on_ranks(1, source, "", run, net):
        assert isinstance(statistics, list)
        assert all(math.isfinite(value) for value in statistics)
        assert statistics[0] != 0


@pytest.mark.parametrize("size", [1, 2])
def test_all_ranks_leave_the_loss_of_a_skipped_step_out_of_the_average(tmp_path: Path, size: int) -> None:
    source = records(tmp_path, {7: [0.0, NAN, 0.0]})

    def run(solver: Solver) -> tuple[list[float], list[float]]:
        solver.sentinel.mode = "skip"
        losses: list[float] = []
        solver.add_callback(lambda: None, lambda: losses.append(solver.loss))
        solver.step(6)
        return losses, solver.smoothed.losses

    skipped = {1: 3, 2: 1}[size]
    for losses, smoothed in on_ranks(size, source, "average_loss: 10", run):
        assert len(losses) == 6
        assert smoothed == losses[:skipped] + losses[skipped + 1 :]


def test_taking_back_a_loss_restores_the_window() -> None:
    smoothed = SmoothedLoss(2)
    smoothed.add(1.0)
    smoothed.add(NAN)
    smoothed.take_back()
    assert smoothed.losses == [1.0]
    for loss in (2.0, 4.0, NAN):
        smoothed.add(loss)
    smoothed.take_back()
    assert (smoothed.losses, smoothed.value) == ([2.0, 4.0], 3.0)


# The first column of a record meets weights of 0, so that a value that is too large spoils their gradient alone; the
# others go through SyncBN, whose backward pass comes later and waits for all ranks.
WITH_SYNC_BN = """
name: "line"
layer {{ name: "records" type: "Data" top: "x" top: "y"
  data_param {{ source: "{source}" batch_size: {batch_size} backend: LMDB }} }}
layer {{ name: "slice" type: "Slice" bottom: "x" top: "first" top: "others" slice_param {{ axis: 1 slice_point: 1 }} }}
layer {{ name: "mix" type: "InnerProduct" bottom: "others" top: "mix"
  inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "SyncBN" bottom: "mix" top: "bn" }}
layer {{ name: "line" type: "InnerProduct" bottom: "bn" top: "line"
  inner_product_param {{ num_output: 1 weight_filler {{ type: "constant" value: 0.5 }} }} }}
layer {{ name: "wild" type: "InnerProduct" bottom: "first" top: "wild" inner_product_param {{ num_output: 1 }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "line" bottom: "wild" top: "prediction" }}
layer {{ name: "flat" type: "Reshape" bottom: "prediction" top: "flat" reshape_param {{ shape {{ dim: -1 }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "flat" bottom: "y" top: "loss" }}
"""


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_ranks_with_sync_bn_search_in_step(tmp_path: Path, mode: str) -> None:
    source = records(tmp_path, {1: [1e38, 0.0, 0.0]}, {1: 100})

    def run(solver: Solver) -> tuple[str, int, list[float]]:
        solver.sentinel.mode = mode
        # Here, since NumPy's way with overflow is each thread's own.
        with np.errstate(over="ignore", invalid="ignore"):
            if mode == "stop":
                return stopped(solver)
            solver.step(5)
        return "", solver.iter, weights(solver)

    ends = on_ranks(2, source, "", run, WITH_SYNC_BN)
    assert ends[0] == ends[1]
    message, iteration, values = ends[0]
    assert all(math.isfinite(value) for value in values)
    assert iteration == (0 if mode == "stop" else 5)
    if mode == "stop":
        assert message.startswith(
            "iteration 0 on rank 1 of 2: the gradient is not finite; the first that is not finite"
        )
        assert "gradient of parameter wild[0] of layer 'wild' (InnerProduct), 1 of 1 values" in message


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("what", ["parameter line[0]: 1 of 3 values", "statistic bn[0]: 1 of 3 values"])
def test_skipping_ends_where_the_parameters_are_spoilt(tmp_path: Path, size: int, what: str) -> None:
    source = records(tmp_path, {8: [NAN, 0.0, 0.0]})
    net = NET.replace(
        'layer {{ name: "line"', 'layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "x" }} layer {{ name: "line"'
    )

    def run(solver: Solver) -> tuple[str, int, list[float]]:
        solver.sentinel.mode = "skip"
        solver.step(1)
        layer = what[: what.index("[")].split()[1]
        solver.net.params[layer][0].data.reshape(-1)[1] = NAN
        return stopped(solver)

    messages = {end[0] for end in on_ranks(size, source, "", run, net)}
    [message] = messages
    assert f"Before this step already {what} were not finite: to skip steps cannot help" in message
    assert "go on from the last snapshot" in message


def snapshots_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("line_iter_*")}


def test_no_snapshot_is_made_of_what_an_update_has_spoilt(tmp_path: Path) -> None:
    """Nor is the last good one removed, which a further one would replace."""
    source = records(tmp_path, {}, dict.fromkeys(range(24), 1000))
    # The rate of iteration 2 overflows the step, whose loss and gradient are fine.
    policy = f'lr_policy: "step" stepsize: 2 gamma: 3e38 snapshot: 1 snapshot_prefix: "{tmp_path}/line"'

    def run(solver: Solver) -> tuple[str, int, dict[str, bytes]]:
        solver.keeper.keep = 1
        solver.step(2)
        solver.keeper.wait()
        before = snapshots_in(tmp_path)
        with np.errstate(over="ignore", invalid="ignore"):
            message, iteration, _ = stopped(solver)
            with pytest.raises(NotFiniteError, match="No snapshot is written"):
                solver.snapshot()
        solver.keeper.wait()
        return message, iteration, before

    [(message, iteration, before)] = on_ranks(1, source, policy, run)
    assert iteration == 3
    assert message.startswith(
        "iteration 3: parameter line[0]: 3 of 3 values are not finite after the update. No snapshot"
    )
    assert {name.split(".")[0] for name in before} == {"line_iter_2"}
    assert snapshots_in(tmp_path) == before


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda solver: solver.net.parameters.statistics.mutable_host(), "statistic bn[0]: 1 of 3 values"),
        (lambda solver: solver.flat_update.host_history()[0], "the history of parameter line[0]: 1 of 3 values"),
    ],
)
def test_statistics_and_history_are_looked_at_before_a_snapshot(
    tmp_path: Path, spoil: Callable[[Solver], npt.NDArray[np.float32]], named: str
) -> None:
    net = NET.replace(
        'layer {{ name: "line"', 'layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "x" }} layer {{ name: "line"'
    )

    def run(solver: Solver) -> str:
        solver.step(1)
        spoil(solver)[0] = np.inf
        with pytest.raises(NotFiniteError) as raised:
            solver.snapshot()
        return str(raised.value)

    [message] = on_ranks(1, records(tmp_path, {}), f'momentum: 0.9 snapshot_prefix: "{tmp_path}/line"', run, net)
    assert named in str(message)
    assert not snapshots_in(tmp_path)


def spoil_gradient(solver: Solver, value: float) -> None:
    """From the next step on the last value of the gradient is ``value``, though the loss is fine."""
    solver.add_callback(lambda: None, lambda: solver.net.parameters.diff.mutable_host().__setitem__(-1, value))


def held(solver: Solver) -> list[list[float]]:
    flats = [solver.net.parameters.data.host(), *solver.flat_update.host_history()]
    return [*(flat.tolist() for flat in flats), solver.policy_state().get("larc_correlations", [])]


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("skip", "momentum: 0.9"),
        ("skip", 'momentum: 0.9 delta: 1e-8 type: "Adam"'),
        ("skip", "momentum: 0.9 larc: true larc_turbo: true"),
        ("skip", "clip_gradients: 0.1"),
        ("stop", "clip_gradients: 0.1"),
        ("stop", "momentum: 0.9 larc: true larc_turbo: true"),
    ],
)
def test_nothing_is_updated_before_the_whole_gradient_is_known(tmp_path: Path, mode: str, settings: str) -> None:
    def run(solver: Solver) -> tuple[list[list[float]], list[list[float]]]:
        solver.sentinel.mode = mode
        solver.step(3)
        before = held(solver)
        spoil_gradient(solver, NAN)
        if mode == "skip":
            solver.step(1)
        else:
            stopped(solver)
        return before, held(solver)

    [(before, after)] = on_ranks(1, records(tmp_path, {}), settings, run)
    assert any(before[1])
    assert before == after


@pytest.mark.parametrize("size", [1, 2])
def test_an_update_that_is_broken_off_spoils_nothing_and_is_no_place_to_go_on_from(tmp_path: Path, size: int) -> None:
    """The weights are a piece of their own, updated before the bias is looked at."""
    source = records(tmp_path, {})
    different = "param {{ lr_mult: 1 }} param {{ lr_mult: 2 }} inner_product_param"
    net = NET.replace("{params}", "").replace("inner_product_param", different)

    def run(solver: Solver) -> tuple[list[float], list[float], list[float]]:
        solver.step(2)
        solver.snapshot()
        good = weights(solver)
        spoil_gradient(solver, float("inf"))
        message, iteration, after = stopped(solver)
        assert iteration == 2
        assert "the sum of the gradients is not finite" in message
        if solver.root_solver:
            with pytest.raises(SpoiltParametersError, match="the update of iteration 2 was broken off"):
                solver.snapshot()
        with pytest.raises(SpoiltParametersError, match="Go on from a snapshot"):  # on every rank
            solver.step(1)
        solver.callbacks.pop()
        solver.restore(str(tmp_path / "line_iter_2.solverstate"))
        restored = weights(solver)
        solver.step(1)
        return good, after, restored

    good, after, restored = on_ranks(size, source, f'snapshot_prefix: "{tmp_path}/line"', run, net)[0]
    assert good == restored
    assert after[:3] != good[:3]
    assert after[3] == good[3]


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_a_gradient_whose_squares_overflow_is_as_good_as_any(tmp_path: Path, value: float) -> None:
    def run(solver: Solver) -> int:
        spoil_gradient(solver, value)
        solver.step(1)
        return solver.iter

    source = records(tmp_path, {})
    for settings in ("", "clip_gradients: 1"):
        assert on_ranks(1, source, settings, run) == [1]


def test_a_sum_that_overflows_is_not_enough() -> None:
    with without_warnings():
        assert is_finite(np.full(4, 2e38, np.float32), np)
        assert not is_finite(np.array([1, np.inf, -np.inf], np.float32), np)
        assert not is_finite(np.array([1, np.nan], np.float32), np)
        assert is_finite(np.zeros(0, np.float32), np)
