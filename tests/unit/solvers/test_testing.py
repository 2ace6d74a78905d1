"""Tests that ranks share: the same scores, to the bit, on any number of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paratrain.comm.communicator import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.proto import TEST, NetParameter, NetState, SolverParameter, parse_prototxt
from paratrain.solvers import Action, Solver
from paratrain.solvers.testing import can_be_dealt
from tests.unit.solvers.least_squares import NET, random_records

SETTINGS = """base_lr: 0.01 lr_policy: "fixed" max_iter: 6 random_seed: 3 snapshot_after_train: false
test_iter: {test_iter} test_interval: 2 test_compute_loss: true display: 0 """


def settings(source: Path, batch: int, test_iter: int = 5, extra: str = "") -> SolverParameter:
    train = NET.format(source=source, batch_size=batch, start=0.5, bias="true", params="")
    test = NET.format(source=source, batch_size=4, start=0.0, bias="true", params="") + extra
    text = SETTINGS.format(test_iter=test_iter) + f"train_net_param {{ {train} }} test_net_param {{ {test} }}"
    return parse_prototxt(text, SolverParameter)


def on_ranks(size: int, parameter: SolverParameter, run: Callable[[Solver], object]) -> list[object]:
    def main(communicator: Communicator) -> object:
        solver = create_parallel_solver(parameter, communicator)
        try:
            return run(solver)
        finally:
            solver.close()

    return run_threads(size, main)


class Scores:
    """Stands where a solver's metrics are written."""

    def __init__(self) -> None:
        self.outputs: list[tuple[int, dict[str, float]]] = []

    def write(self, **figures: object) -> None:
        if "outputs" in figures:
            self.outputs.append((figures["iteration"], figures["outputs"]))  # type: ignore[arg-type]

    def close(self) -> None:
        pass


def scores_of_a_run(solver: Solver) -> list[tuple[int, dict[str, float]]]:
    scores = Scores()
    solver.metrics = scores  # type: ignore[assignment]
    solver.solve()
    return scores.outputs


@pytest.mark.parametrize("test_iter", [1, 5])
def test_scores_have_the_same_bits_on_1_2_and_3_ranks(tmp_path: Path, test_iter: int) -> None:
    """Several passes, which end in the middle of a round of the ranks, over parameters that only the root has anew."""
    source = random_records(tmp_path, count=24)
    # The same steps for every number of ranks: each rank has all records in its batch.
    runs = [on_ranks(size, settings(source, 24, test_iter), scores_of_a_run) for size in (1, 2, 3)]
    alone = runs[0][0]
    assert isinstance(alone, list)
    assert [iteration for iteration, _ in alone] == [0, 2, 4, 6]
    assert len({outputs["loss"] for _, outputs in alone}) == 4
    for run in runs[1:]:
        found = run[0]
        assert isinstance(found, list)
        assert [iteration for iteration, _ in found] == [0, 2, 4, 6]
        for (_, mine), (_, theirs) in zip(found, alone, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert found[0] == alone[0]  # the same parameters still: the same bits


def test_each_batch_is_read_by_one_rank_alone(tmp_path: Path) -> None:
    source = random_records(tmp_path, count=24)

    def count(solver: Solver) -> tuple[int, int]:
        solver.test_all()
        solver.test_all()
        layer = solver.test_nets[0].layers[0]
        return layer.next_batch, solver.testers[0].next_batch  # type: ignore[attr-defined]

    assert on_ranks(3, settings(source, 6), count) == [(4, 10), (3, 10), (3, 10)]


def test_a_resumed_test_goes_on_where_all_ranks_were(tmp_path: Path) -> None:
    source = random_records(tmp_path, count=24)

    def second_pass(solver: Solver) -> list[tuple[int, dict[str, float]]]:
        scores = Scores()
        solver.metrics = scores  # type: ignore[assignment]
        if solver.size == 1:
            solver.test_all()
        else:
            solver.testers[0].seek(5)
        solver.test_all()
        return scores.outputs[-1:]

    expected = on_ranks(1, settings(source, 6), second_pass)[0]
    assert on_ranks(2, settings(source, 6), second_pass)[0] == expected
    assert on_ranks(3, settings(source, 6), second_pass)[0] == expected


@pytest.mark.parametrize("size", [1, 2, 3])
def test_scores_of_a_resumed_run_are_those_of_the_run_that_went_on(tmp_path: Path, size: int) -> None:
    parameter = settings(random_records(tmp_path, count=23), 6)
    parameter.snapshot, parameter.snapshot_prefix = 3, str(tmp_path / "saved")

    def go_on(solver: Solver) -> list[tuple[int, dict[str, float]]]:
        solver.restore(str(tmp_path / "saved_iter_3.solverstate"))
        return scores_of_a_run(solver)

    whole = on_ranks(size, parameter, scores_of_a_run)[0]
    assert isinstance(whole, list)
    resumed = on_ranks(size, parameter, go_on)[0]
    assert resumed == [scores for scores in whole if scores[0] > 3]
    assert len(whole) == 4


def test_a_test_sees_the_roots_parameters(tmp_path: Path) -> None:
    source = random_records(tmp_path, count=24)

    def run(solver: Solver) -> object:
        if solver.root_solver:
            solver.net.params["line"][0].data[...] = 2.0
        scores = Scores()
        solver.metrics = scores  # type: ignore[assignment]
        solver.test_all()
        return [solver.net.params["line"][0].data.tolist(), scores.outputs]

    alone, (root, other) = on_ranks(1, settings(source, 6), run), on_ranks(2, settings(source, 6), run)
    assert root == alone[0]
    assert isinstance(other, list)
    assert other[0] == [[2.0, 2.0, 2.0]]


class AskedAt:
    """Asks for ``action`` when it is called for the ``call``-th time from now, on one rank."""

    def __init__(self, solver: Solver, action: Action, call: int, rank: int) -> None:
        self.left = call if solver.rank == rank else -1
        self.action = action

    def __call__(self) -> Action:
        self.left -= 1
        return self.action if self.left == 0 else Action.NONE


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("action", [Action.STOP, Action.STOP | Action.SNAPSHOT])
def test_a_test_is_broken_off_by_all_ranks_and_made_up_for_on_resuming(
    tmp_path: Path, size: int, action: Action, log_lines: list[str]
) -> None:
    """One of two tests of iteration 4 is: both are repeated by the run that goes on, over the same batches."""
    parameter = settings(random_records(tmp_path, count=23), 6)
    parameter.test_iter.append(40)
    parameter.test_net_param.append(parameter.test_net_param[0])
    parameter.snapshot_after_train, parameter.snapshot_prefix = True, str(tmp_path / "whole")
    whole = on_ranks(size, parameter, scores_of_a_run)[0]
    assert isinstance(whole, list)
    parameter.snapshot_prefix = str(tmp_path / "stops")
    log_lines.clear()

    def break_off(solver: Solver) -> tuple[int, int, object]:
        solver.step(4)
        first = solver.testers[0].next_batch
        # Alone a rank is asked before every batch, and the ninth is one of the second test.
        solver.action_function = AskedAt(solver, action, 2 if size > 1 else 9, size - 1)
        scores = scores_of_a_run(solver)
        return first, solver.testers[0].next_batch, scores

    ends = on_ranks(size, parameter, break_off)
    for end in ends:
        assert isinstance(end, tuple)
        assert end[0] == end[1] == 10
    assert "Test interrupted." in log_lines
    assert log_lines[-1] == "Optimization stopped early."
    assert {path.name for path in tmp_path.glob("stops_iter_*")} == {
        f"stops_iter_4.{kind}" for kind in ("caffemodel", "solverstate", "trainstate")
    }

    def go_on(solver: Solver) -> list[tuple[int, dict[str, float]]]:
        solver.restore(str(tmp_path / "stops_iter_4.solverstate"))
        return scores_of_a_run(solver)

    assert on_ranks(size, parameter, go_on)[0] == [scores for scores in whole if scores[0] >= 4]
    for kind in ("caffemodel", "solverstate"):
        name = f"_iter_6.{kind}"
        found, expected = (tmp_path / f"{run}{name}" for run in ("stops", "whole"))
        assert found.read_bytes().replace(b"stops", b"whole") == expected.read_bytes()


@pytest.mark.parametrize("size", [2, 3])
def test_a_test_of_the_root_alone_is_broken_off_too(tmp_path: Path, size: int, log_lines: list[str]) -> None:
    extra = 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" batch_norm_param { use_global_stats: false } }'
    parameter = settings(random_records(tmp_path, count=24), 6, test_iter=1_000_000, extra=extra)

    def run(solver: Solver) -> int:
        solver.action_function = AskedAt(solver, Action.STOP, 3, size - 1)
        solver.solve()
        return solver.iter

    assert on_ranks(size, parameter, run) == [0] * size
    assert log_lines[-2:] == ["Test interrupted.", "Optimization stopped early."]


@pytest.mark.parametrize(
    ("layer", "answer"),
    [
        ('type: "ReLU"', True),
        ('type: "Data"', True),
        ('type: "MemoryData"', False),
        ('type: "LSTM" recurrent_param { num_output: 2 }', False),
        ('type: "LSTM" recurrent_param { num_output: 2 expose_hidden: true }', True),
        ('type: "BatchNorm"', True),
        ('type: "BatchNorm" batch_norm_param { use_global_stats: false }', False),
        ('type: "Python"', False),
        ('type: "Python" include { phase: TRAIN }', True),
        ('type: "NoSuchLayer"', True),
    ],
)
def test_which_nets_ranks_can_share(layer: str, answer: bool) -> None:
    parameter = parse_prototxt(f'layer {{ name: "x" {layer} }}', NetParameter)
    parameter.state.MergeFrom(NetState(phase=TEST))
    assert can_be_dealt(parameter) == answer


def test_what_ranks_cannot_share_is_tested_on_the_root(tmp_path: Path) -> None:
    source = random_records(tmp_path, count=24)
    extra = 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" batch_norm_param { use_global_stats: false } }'
    parameter = settings(source, 6, extra=extra)

    def run(solver: Solver) -> tuple[int, int]:
        solver.step(3)
        return len(solver.test_nets), solver.testers[0].next_batch

    assert on_ranks(2, parameter, run) == [(1, 10), (0, 10)]


def test_dummy_data_of_a_batch_follows_from_its_number() -> None:
    from paratrain.backends import create_backend
    from paratrain.layers.base import LayerContext
    from paratrain.net import Net

    text = """layer { name: "d" type: "DummyData" top: "x"
      dummy_data_param { shape { dim: 4 } data_filler { type: "uniform" } } }"""
    seen: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        net = Net(parse_prototxt(text, NetParameter), LayerContext(create_backend(), TEST, seed=5, deal=(rank, size)))
        for number in range(rank, 6, size):
            net.forward_from_to()
            values = net.blobs["x"].data.copy()
            np.testing.assert_array_equal(seen.setdefault(number, values), values)
    assert len({values.tobytes() for values in seen.values()}) == 6
