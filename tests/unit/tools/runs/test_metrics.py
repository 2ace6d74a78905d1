from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from paratrain.errors import DataError
from paratrain.metrics import CsvWriter, MetricsWriter, SeveralWriters
from paratrain.tools.runs import Run, open_run
from paratrain.tools.runs.run import kind_of


def of_training(iteration: int, loss: float, **others: Any) -> dict[str, Any]:
    return {"iteration": iteration, "loss": loss, "lr": 0.01, "images_per_s": 100.0, "data_s": 0.0, **others}


def of_test(iteration: int, net: int = 0, **outputs: Any) -> dict[str, Any]:
    return {"iteration": iteration, "test_net": net, "outputs": outputs}


def read(path: Path, *records: dict[str, Any]) -> Run:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return open_run(path)


def test_curves(tmp_path: Path) -> None:
    run = read(
        tmp_path / "m.jsonl",
        of_test(0, accuracy=0.1, each=[0.5, None]),
        of_training(0, 2.5, train_outputs={"loss": 2.5}, ranks={"data_s": [0.5, 0.25]}, loss_min=2.0),
        of_test(0, net=1, accuracy=0.2),
    )
    assert run.training == {name: {0: value} for name, value in
                            {"loss": 2.5, "lr": 0.01, "images_per_s": 100.0, "data_s": 0.0, "loss_min": 2.0}.items()}  # fmt: skip
    assert run.outputs == {"loss": {0: 2.5}}
    assert run.ranks == {0: {"data_s": [0.5, 0.25]}}
    assert run.tests[0, "accuracy"] == {0: 0.1}
    assert run.tests[1, "accuracy"] == {0: 0.2}
    assert run.tests[0, "each[0]"] == {0: 0.5}
    assert math.isnan(run.tests[0, "each[1]"][0])


def test_a_resumed_run_overwrites_what_it_repeats(tmp_path: Path) -> None:
    starts = [
        {"run": {"iteration": at, "net": name}, "time": time} for at, name, time in ((0, "a", 10.0), (10, "b", 50.0))
    ]
    run = read(
        tmp_path / "m",
        starts[0],
        *(of_training(at, float(at), time=12.0 + at) for at in (0, 10, 20)),
        starts[1],
        of_training(10, 1.0, time=51.0),
        of_test(12, accuracy=0.5) | {"time": 52.0},
        {"warning": "w", "time": 53.0},
        {"layers": {"steps": 3}, "time": 53.0},
    )
    assert run.training["loss"] == {0: 0.0, 10: 1.0}
    assert run.training_seconds == {0: 2.0, 10: 23.0}  # 22 s before the pause, at iteration 20
    assert run.test_seconds == {12: 24.0}
    assert run.facts["net"] == "b"
    assert (run.warnings, run.layers, run.begun_at) == (["w"], {"steps": 3}, 10.0)


def test_an_unfinished_last_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(of_training(20, 1.0)) + '\n{"iteration": 30, "lo')
    assert open_run(path).last_iteration == 20


@pytest.mark.parametrize(
    "line", ["not json", "[1, 2]", '{"iteration": 3}', '{"iteration": 3, "test_net": 0, "outputs": 1}', '{"run": {}}']
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(of_training(0, 1.0)) + f"\n{line}\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: expected a JSON object"):
        open_run(path)


def test_tables_in_csv_hold_the_same_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 101.0, 102.5, 104.0])
    monkeypatch.setattr("paratrain.metrics.several.time.time", lambda: next(times))
    sinks = SeveralWriters([CsvWriter(tmp_path / "run.csv"), MetricsWriter(tmp_path / "run.jsonl")])
    for record in (
        of_training(0, math.nan, train_outputs={"loss": 2.5, "each": [1.0, 2.0]}), of_test(10, accuracy=0.5, loss=0.25),
        of_test(10, net=1, top=0.75), of_training(10, 0.5, loss_max=1.0, train_outputs={"loss": 0.5}),
    ):  # fmt: skip
        sinks.write(**record)
    sinks.close()
    lines, tables, beside = (open_run(tmp_path / name) for name in ("run.jsonl", "run.csv", "run.test_1.csv"))
    assert math.isnan(tables.training["loss"].pop(0)) == math.isnan(lines.training["loss"].pop(0)) is True
    beside.training["loss"].pop(0)
    for run in (tables, beside):
        assert run.training == lines.training
        assert run.outputs == lines.outputs
        assert run.tests == lines.tests
        assert run.training_seconds == {0: 0.0, 10: 4.0}


def test_a_row_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("iteration,time,loss\n0,1.0,0.5\n1,x,0.5\n2,3.0")
    with pytest.raises(DataError, match=r"run\.csv:3: expected a row"):
        open_run(path)


def test_what_an_output_is() -> None:
    names = ["accuracy", "acc", "loss3/top-5", "top1", "loss1/loss1", "mbox_loss", "detection", "Accuracy/all"]
    assert [kind_of(name) for name in names] == ["accuracy"] * 4 + ["loss"] * 2 + ["", "accuracy"]
