"""Steps whose loss or gradient is not finite: found, named, and survived together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from paratrain.comm.communicator import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.errors import NotFiniteError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver
from paratrain.solvers.sentinel import is_finite
from tests.unit.solvers.least_squares import NET, weights, write_records

SETTINGS = 'base_lr: 0.01 lr_policy: "fixed" max_iter: 6 random_seed: 3 snapshot_after_train: false '
NAN = float("nan")


def records(folder: Path, bad: dict[int, Sequence[float]], labels: dict[int, int] | None = None) -> Path:
    rng = np.random.default_rng(7)
    inputs = rng.normal(size=(24, 3))
    for index, row in bad.items():
        inputs[index] = row
    return write_records(folder, inputs, [(labels or {}).get(i, i % 3) for i in range(24)])


def on_ranks(size: int, source: Path, extra: str, run: Callable[[Solver], object], net: str = NET) -> list[object]:
    text = net.format(source=source, batch_size=2, start=0.0, bias="true", params="")
    parameter = parse_prototxt(f"{SETTINGS} {extra} net_param {{ {text} }}", SolverParameter)

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
    messages = [end[0] for end in ends]  # type: ignore[index]
    assert len(set(messages)) == 1
    iteration, rank = {1: (3, 0), 2: (1, 1), 3: (1, 1)}[size]
    where = f"iteration {iteration}" + (f" on rank {rank} of {size}" if size > 1 else "")
    assert messages[0].startswith(f"{where}: the loss is nan; the first that is not finite is blob 'x', made by layer ")
    assert "layer 'records' (Data), 1 of 6 values (of the records 00000007)" in messages[0]
    assert "layer 'records' read the records 0" in messages[0]
    for end in ends:
        assert end[1] == iteration  # type: ignore[index]
    assert all(math.isfinite(value) for value in ends[0][2])  # type: ignore[index]


def test_the_records_of_the_right_pass_are_named(tmp_path: Path) -> None:
    """Of several passes in an iteration, whose later ones are run before anything is decided."""
    source = records(tmp_path, {3: [NAN, 0.0, 0.0]})
    [(message, _, _)] = on_ranks(1, source, "iter_size: 4", stopped)  # type: ignore[misc]
    assert "layer 'records' read the records 00000002, 00000003." in message


def test_a_gradient_that_overflows_is_traced_to_its_layer(tmp_path: Path) -> None:
    source = records(tmp_path, {1: [1e38, 0.0, 0.0]}, {1: 100})
    for size, rank in ((1, 0), (2, 1)):
        with np.errstate(over="ignore"):
            message, _, _ = on_ranks(size, source, "", stopped)[0]  # type: ignore[misc]
        assert "the gradient is not finite; the first that is not finite is gradient of parameter line[0]" in message
        assert "layer 'line' (InnerProduct), 1 of 3 values" in message
        assert (f"on rank {rank} of 2" in message) == (size == 2)


def test_parameters_that_are_not_finite_are_named(tmp_path: Path) -> None:
    def run(solver: Solver) -> tuple[str, int, list[float]]:
        solver.step(1)
        solver.net.params["line"][0].data[0, 1] = NAN
        return stopped(solver)

    [(message, _, _)] = on_ranks(1, records(tmp_path, {}), "", run)  # type: ignore[misc]
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
    assert not any("loss = nan" in line for line in log_lines if line.startswith("Iteration"))


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


def test_a_sum_that_overflows_is_not_enough() -> None:
    assert is_finite(np.full(4, 2e38, np.float32), np)
    assert not is_finite(np.array([1, np.inf, -np.inf], np.float32), np)
    assert not is_finite(np.array([1, np.nan], np.float32), np)
    assert is_finite(np.zeros(0, np.float32), np)
