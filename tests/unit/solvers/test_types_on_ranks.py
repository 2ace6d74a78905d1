"""Every type of solver, and plateau, on several ranks: the steps of one rank with all their batches together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.proto import SolverParameter, parse_prototxt
from tests.unit.solvers.least_squares import NET, random_records, weights
from tests.unit.solvers.test_types import TYPES, settings_of


def train(size: int, source: Path, batch_size: int, settings: str) -> list[tuple[list[float], dict[str, Any], float]]:
    net = NET.format(source=source, batch_size=batch_size, start=0.5, bias="true", params="")
    parameter = parse_prototxt(
        f"{settings} random_seed: 1 snapshot_after_train: false net_param {{ {net} }}", SolverParameter
    )

    def main(communicator: Communicator) -> tuple[list[float], dict[str, Any], float]:
        solver = create_parallel_solver(parameter, communicator)
        solver.step(8)
        solver.close()
        return weights(solver), solver.policy_state(), solver.lr

    return run_threads(size, main)


@pytest.mark.parametrize("local", ["", "larc: true larc_eta: 0.1"])
@pytest.mark.parametrize("kind", TYPES)
def test_ranks_take_the_steps_of_one(tmp_path: Path, kind: str, local: str) -> None:
    source = random_records(tmp_path)
    settings = settings_of(kind) + f"weight_decay: 0.01 {local}"
    [(alone, _, _)] = train(1, source, 6, settings)
    first, *others = train(3, source, 2, settings)
    assert first[0] == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert all(other[0] == first[0] for other in others)


def test_all_ranks_see_the_same_plateau(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    settings = 'base_lr: 0.3 lr_policy: "plateau" gamma: 0.5 plateau_winsize: 2 plateau_winsize: 1 momentum: 0.9 average_loss: 2'
    [(alone, state, rate)] = train(1, source, 6, settings)
    assert state["current_step"] > 0
    ranks = train(3, source, 2, settings)
    for learned, found, found_rate in ranks:
        assert learned == pytest.approx(alone, rel=1e-4, abs=1e-5)
        assert found_rate == rate
        assert found == ranks[0][1]
        assert found["iter_last_event"] == state["iter_last_event"]
        assert found["minimum_loss"] == pytest.approx(state["minimum_loss"], rel=1e-5)
