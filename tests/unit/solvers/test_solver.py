from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from paratrain.errors import NotFiniteError
from paratrain.metrics import MetricsWriter
from paratrain.proto import NetParameter, SolverState, read_binary
from tests.unit.solvers.least_squares import make_solver, random_records, weights, write_records

SGD = 'base_lr: 0.1 lr_policy: "fixed" '
NUMBER = r"[-+.\deE]+"


@pytest.fixture
def one_record(tmp_path: Path) -> Path:
    return write_records(tmp_path, [[2.0]], [3])


def test_steps_worked_out_by_hand(one_record: Path) -> None:
    # w = 0.5, x = 2, y = 3: error 1 - 3 = -2, gradient -2 * 2 + 0.2 * 0.5 = -3.9, V = 0.1 * -3.9, w = 0.89
    # then: error 1.78 - 3 = -1.22, gradient -2.44 + 0.2 * 0.89 = -2.262, V = 0.5 * -0.39 - 0.2262 = -0.4212, w = 1.3112
    solver = make_solver(one_record, SGD + "momentum: 0.5 weight_decay: 0.2")
    solver.keeps_updates = True
    solver.step(1)
    assert weights(solver) == pytest.approx([0.89])
    assert solver.loss == pytest.approx(2.0)
    solver.step(1)
    assert weights(solver) == pytest.approx([1.3112])
    assert float(solver.net.params["line"][0].diff[0, 0]) == pytest.approx(-0.4212)
    assert solver.iter == 2
    solver.close()


def test_multipliers_of_the_rate_and_the_decay(one_record: Path) -> None:
    # The gradient by the bias is -2; the weight decays with 0.2 * 3 * 0.5 = 0.3, the bias does not.
    params = "param { lr_mult: 2 decay_mult: 3 } param { lr_mult: 0.5 decay_mult: 0 }"
    solver = make_solver(one_record, SGD + "weight_decay: 0.2", bias=True, params=params)
    solver.step(1)
    assert weights(solver) == pytest.approx([0.5 - 0.2 * (-4 + 0.3), 0.0 - 0.05 * -2])
    solver.close()


def test_a_frozen_parameter_stays(one_record: Path) -> None:
    solver = make_solver(one_record, SGD, bias=True, params="param { lr_mult: 0 } param { lr_mult: 1 }")
    solver.step(3)
    assert weights(solver)[0] == 0.5
    assert weights(solver)[1] != 0.0
    solver.close()


def test_l1_decay(one_record: Path) -> None:
    solver = make_solver(one_record, SGD + 'weight_decay: 0.2 regularization_type: "L1"')
    solver.step(1)
    assert weights(solver) == pytest.approx([0.5 - 0.1 * (-4 + 0.2)])
    solver.close()


def test_a_clipped_gradient(one_record: Path) -> None:
    solver = make_solver(one_record, SGD + "clip_gradients: 1 weight_decay: 0.2")
    solver.step(1)
    assert weights(solver) == pytest.approx([0.5 - 0.1 * (-1 + 0.2 * 0.5)])
    solver.close()


@pytest.mark.parametrize("extra", ["", "clip_gradients: 1000", 'regularization_type: "L1"'])
def test_iter_size_k_is_one_batch_k_times_as_large(tmp_path: Path, extra: str) -> None:
    source = random_records(tmp_path)
    settings = SGD + f"momentum: 0.9 weight_decay: 0.05 {extra} "
    large = make_solver(source, settings, batch_size=8, bias=True)
    small = make_solver(source, settings + "iter_size: 4", batch_size=2, bias=True)
    for _ in range(6):
        large.step(1)
        small.step(1)
        assert weights(small) == pytest.approx(weights(large), rel=1e-5)
        assert small.loss == pytest.approx(large.loss, rel=1e-5)
    large.close()
    small.close()


class Recorder:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self) -> None:
        self.calls.append("start")

    def on_gradient_ready(self) -> None:
        self.calls.append("gradient")

    def on_finish(self) -> None:
        self.calls.append("finish")


def test_callbacks_come_in_order(one_record: Path) -> None:
    solver, recorder = make_solver(one_record, SGD), Recorder()
    solver.add_callback(recorder)
    solver.add_callback(lambda: recorder.calls.append("f"), lambda: recorder.calls.append("g"))
    solver.step(2)
    assert recorder.calls == ["start", "f", "gradient", "g", "start", "f", "gradient", "g", "finish"]
    solver.close()


def test_the_gradient_that_callbacks_leave_is_the_one_used(one_record: Path) -> None:
    solver = make_solver(one_record, SGD)
    diff = solver.net.parameters.diff
    solver.add_callback(lambda: None, lambda: diff.mutable_host().fill(7.0))
    solver.step(1)
    assert weights(solver) == pytest.approx([0.5 - 0.7])
    solver.close()


def test_only_the_root_updates_tests_and_snapshots(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    settings = SGD + f'test_iter: 1 test_interval: 1 snapshot: 1 max_iter: 2 snapshot_prefix: "{tmp_path}/other"'
    other = make_solver(source, settings, rank=1, size=2)
    assert other.test_nets == []
    before = weights(other)
    other.solve()
    other.snapshot()
    assert weights(other) == before
    assert other.iter == 2
    assert list(tmp_path.glob("other*")) == []
    other.close()


def test_the_log_of_a_run_is_what_caffes_log_parsers_read(tmp_path: Path, log_lines: list[str]) -> None:
    settings = (
        f'base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 4 max_iter: 6 display: 2 average_loss: 2 '
        f"test_iter: 3 test_interval: 3 "
        f'snapshot: 4 snapshot_prefix: "{tmp_path}/line"'
    )
    solver = make_solver(random_records(tmp_path), settings, batch_size=4)
    solver.solve()
    solver.close()
    text = "\n".join(log_lines)
    rates = re.findall(rf"^Iteration (\d+), lr = ({NUMBER})$", text, re.M)
    assert [(int(at), float(rate)) for at, rate in rates] == [(0, 0.01), (2, 0.01), (4, 0.001)]
    shown = re.findall(rf"^Iteration (\d+) \({NUMBER} iter/s, {NUMBER}s/2 iters\), loss = ({NUMBER})$", text, re.M)
    assert [int(at) for at, _ in shown] == [0, 2, 4]
    outputs = re.findall(rf"^    Train net output #(\d+): (\S+) = ({NUMBER}) \(\* 1 = ({NUMBER}) loss\)$", text, re.M)
    assert [(number, name) for number, name, *_ in outputs] == [("0", "loss")] * 3
    assert all(value == weighted for _, _, value, weighted in outputs)
    assert re.findall(r"^Iteration (\d+), Testing net \(#(\d+)\)$", text, re.M) == [("0", "0"), ("3", "0"), ("6", "0")]
    assert len(re.findall(rf"^    Test net output #0: loss = {NUMBER} \(\* 1 = {NUMBER} loss\)$", text, re.M)) == 3
    assert re.findall(r"^Snapshotting to binary proto file (.*)$", text, re.M) == [f"{tmp_path}/line_iter_4.caffemodel"]
    assert re.search(rf"^Iteration 6, loss = {NUMBER}$", text, re.M)
    assert "Solving line" in log_lines
    assert "Learning Rate Policy: step" in log_lines
    assert log_lines[-1] == "Optimization Done."


def test_the_lines_of_a_displayed_iteration_come_in_caffes_order(one_record: Path, log_lines: list[str]) -> None:
    solver = make_solver(one_record, SGD + "display: 1")
    del log_lines[:]
    solver.step(1)
    assert [re.sub(r"\(.* iters\)", "()", line) for line in log_lines] == [
        "Iteration 0 (), loss = 2",
        "    Train net output #0: loss = 2 (* 1 = 2 loss)",
        "Iteration 0, lr = 0.1",
    ]
    solver.close()


def test_the_displayed_loss_is_smoothed(one_record: Path, log_lines: list[str]) -> None:
    plain = make_solver(one_record, SGD)
    losses = []
    for _ in range(4):
        plain.step(1)
        losses.append(plain.loss)
    plain.close()
    solver = make_solver(one_record, SGD + "display: 1 average_loss: 2")
    solver.step(4)
    solver.close()
    shown = [float(line.rsplit(" ", 1)[1]) for line in log_lines if " iters), loss = " in line]
    expected = [losses[0], (losses[0] + losses[1]) / 2, (losses[1] + losses[2]) / 2, (losses[2] + losses[3]) / 2]
    assert shown == pytest.approx(expected, rel=1e-4)


def test_the_displayed_loss_is_the_mean_over_ranks(one_record: Path, log_lines: list[str]) -> None:
    solver = make_solver(one_record, SGD + "display: 2")
    asked: list[int] = []

    def mean(values: Sequence[float]) -> list[float]:
        asked.append(solver.iter)
        return [value + 10 for value in values]

    solver.mean_over_ranks = mean
    solver.step(3)
    assert asked == [0, 2]
    assert "    Train net output #0: loss = 12 (* 1 = 12 loss)" in log_lines
    assert solver.loss < 2
    solver.close()


@pytest.mark.parametrize(("initialization", "tested"), [("true", [0, 2]), ("false", [2])])
def test_the_test_before_the_first_iteration_can_be_left_out(
    tmp_path: Path, log_lines: list[str], initialization: str, tested: list[int]
) -> None:
    settings = SGD + f"test_iter: 2 test_interval: 2 test_initialization: {initialization} test_compute_loss: true"
    solver = make_solver(random_records(tmp_path), settings, batch_size=4)
    solver.step(4)
    solver.close()
    assert [int(line.split()[1][:-1]) for line in log_lines if "Testing net" in line] == tested
    assert sum(line.startswith("Test loss: ") for line in log_lines) == len(tested)


def test_a_test_scores_the_mean_over_its_batches(tmp_path: Path) -> None:
    source = write_records(tmp_path, [[1.0], [2.0], [4.0]], [0, 0, 0])
    solver = make_solver(source, SGD + "test_iter: 3 test_interval: 5", start=1.0)
    written = tmp_path / "metrics.jsonl"
    solver.metrics = MetricsWriter(written)
    solver.test_all()
    solver.metrics.close()
    solver.close()
    assert json.loads(written.read_text()) == {"iteration": 0, "test_net": 0, "outputs": {"loss": (0.5 + 2 + 8) / 3}}


def test_the_metrics_of_displayed_iterations(tmp_path: Path) -> None:
    written = tmp_path / "metrics.jsonl"
    solver = make_solver(random_records(tmp_path), SGD + "display: 2 iter_size: 2", batch_size=4)
    solver.metrics = MetricsWriter(written)
    solver.add_callback(Recorder())
    solver.step(5)
    solver.metrics.close()
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 2, 4]
    keys = "iteration loss lr images_per_s data_s forward_s backward_s exchange_s update_s data_share bad_records train_outputs"
    assert all(list(line) == keys.split() for line in lines)
    for line in lines:
        assert line["lr"] == pytest.approx(0.1)
        assert line["images_per_s"] > 0
        assert min(line[key] for key in line if key.endswith("_s")) >= 0
        assert line["update_s"] > 0
        assert 0 <= line["data_share"] <= 1
        assert line["bad_records"] == 0
        assert list(line["train_outputs"]) == ["loss"]  # of the last pass alone, as in the log
    assert solver.images_per_iteration == 8
    solver.close()


def test_a_loss_that_is_not_finite_is_shown(one_record: Path, log_lines: list[str]) -> None:
    solver = make_solver(one_record, SGD + "display: 1", start=1e30)
    with pytest.raises(NotFiniteError, match="the loss is inf"):
        solver.step(1)
    assert math.isinf(solver.loss)
    assert any(line.endswith("loss = inf") for line in log_lines)
    solver.close()


def test_debug_info_is_shown_with_the_displayed_iterations(one_record: Path, log_lines: list[str]) -> None:
    debug_lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: debug_lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("paratrain.net.debug")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    solver = make_solver(one_record, SGD + "display: 2 debug_info: true")
    solver.step(2)
    solver.close()
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    # The weight is 0.5, its gradient 4, and what is subtracted 0.4.
    assert debug_lines.count("    [Backward] Layer line, param blob 0 diff: 4") == 1
    assert [line for line in debug_lines if "[Update]" in line] == [
        "    [Update] Layer line, param 0 data: 0.5; diff: 0.4"
    ]


# -- snapshots -----------------------------------------------------------------------------------------------------


def test_a_resumed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    source = random_records(tmp_path, count=4)
    settings = SGD + f'momentum: 0.9 weight_decay: 0.01 snapshot_prefix: "{tmp_path}/line"'
    straight = make_solver(source, settings, batch_size=4, bias=True)
    straight.step(5)
    straight.snapshot()
    straight.step(5)
    resumed = make_solver(source, settings, batch_size=4, bias=True)
    resumed.restore(f"{tmp_path}/line_iter_5.solverstate")
    assert resumed.iter == 5
    resumed.step(5)
    assert weights(resumed) == weights(straight)
    straight.close()
    resumed.close()


def test_a_moved_snapshot_finds_its_weights(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    solver = make_solver(source, SGD + f'snapshot_prefix: "{tmp_path}/line"')
    solver.step(2)
    solver.snapshot()
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in tmp_path.glob("line_iter_2.*"):
        file.rename(moved / file.name)
    other = make_solver(source, SGD)
    other.restore(str(moved / "line_iter_2.solverstate"))
    assert weights(other) == weights(solver)
    solver.close()
    other.close()


@pytest.mark.parametrize(
    ("snapshot", "after_train", "written"),
    [(0, "true", [5]), (2, "true", [2, 4, 5]), (5, "true", [5]), (2, "false", [2, 4]), (0, "false", [])],
)
def test_when_snapshots_are_written(tmp_path: Path, snapshot: int, after_train: str, written: list[int]) -> None:
    settings = SGD + f'max_iter: 5 snapshot: {snapshot} snapshot_prefix: "{tmp_path}/line"'
    solver = make_solver(random_records(tmp_path), settings)
    solver.parameter.snapshot_after_train = after_train == "true"
    solver.solve()
    solver.close()
    found = {file.name for file in tmp_path.glob("line_iter_*")}
    assert found == {f"line_iter_{at}.{kind}" for at in written for kind in ("caffemodel", "solverstate", "trainstate")}


def test_what_a_snapshot_holds(tmp_path: Path) -> None:
    settings = 'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 2 momentum: 0.5 snapshot_diff: true '
    solver = make_solver(random_records(tmp_path), settings + f'snapshot_prefix: "{tmp_path}/line"', bias=True)
    solver.step(4)
    solver.snapshot()
    state = read_binary(tmp_path / "line_iter_4.solverstate", SolverState)
    assert (state.iter, state.current_step) == (4, 1)
    assert state.learned_net == f"{tmp_path}/line_iter_4.caffemodel"
    assert [list(blob.shape.dim) for blob in state.history] == [[1, 3], [1]]
    model = read_binary(state.learned_net, NetParameter)
    saved = next(layer for layer in model.layer if layer.name == "line")
    assert [list(blob.data) for blob in saved.blobs] == [weights(solver)[:3], weights(solver)[3:]]
    # The last update is what the history holds, and what the diff holds.
    assert [list(blob.diff) for blob in saved.blobs] == [list(blob.data) for blob in state.history]
    solver.close()


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    settings = SGD + f'max_iter: 3 snapshot_prefix: "{tmp_path}/line"'
    solver = make_solver(source, settings)
    solver.step(4)
    solver.snapshot()
    again = make_solver(source, settings)
    again.solve(f"{tmp_path}/line_iter_4.solverstate")
    assert again.iter == 4
    assert weights(again) == weights(solver)
    solver.close()
    again.close()
