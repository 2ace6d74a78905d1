from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest

from paratrain.errors import ParatrainError
from paratrain.metrics import CsvWriter


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_displayed_iterations_and_tests_are_tables(tmp_path: Path) -> None:
    writer = CsvWriter(tmp_path / "run.csv")
    writer.write(run={"iteration": 0}, time=0.5)
    writer.write(iteration=0, test_net=0, outputs={"accuracy": 0.5, "each": [0.1, 0.2], "loss": 2.0}, time=1.0)
    writer.write(iteration=0, test_net=1, outputs={"top-5": 0.9}, time=1.5)
    writer.write(iteration=0, loss=2.5, lr=0.1, train_outputs={"loss": 2.25}, ranks={"data_s": [1, 2]}, time=2.0)
    first = rows(tmp_path / "run.csv")[0]  # there at once, before the file is closed
    writer.close()
    assert {name: value for name, value in first.items() if value} == {
        "iteration": "0", "time": "2.0", "loss": "2.5", "lr": "0.1", "output loss": "2.25",
    }  # fmt: skip
    assert rows(tmp_path / "run.test.csv") == [
        {"iteration": "0", "time": "1.0", "accuracy": "0.5", "each[0]": "0.1", "each[1]": "0.2", "loss": "2.0"}
    ]
    assert rows(tmp_path / "run.test_1.csv") == [{"iteration": "0", "time": "1.5", "top-5": "0.9"}]


def test_a_resumed_run_keeps_the_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.csv"
    for append, outputs in ((False, {"a": 1.0}), (True, {"a": 2.0, "new": 3.0})):
        writer = CsvWriter(path, append=append)
        with caplog.at_level(logging.WARNING, "paratrain"):
            for iteration in (1, 2):
                writer.write(iteration=iteration, loss=0.5, loss_max=0.75, train_outputs=outputs)
        writer.close()
    assert [(row["a"], row["loss_max"]) for row in rows(path)] == [("1.0", "0.75")] * 2 + [("2.0", "0.75")] * 2
    assert "new" not in rows(path)[0]
    assert [entry.getMessage() for entry in caplog.records] == [f"{path} has no columns for new: left out there"]
    CsvWriter(path).close()
    assert path.read_text() == ""  # a new run starts anew


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ParatrainError, match="cannot write metrics to .*No such file or directory"):
        CsvWriter(tmp_path / "none" / "m.csv")
