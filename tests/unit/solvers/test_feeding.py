from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from paratrain.data import DatumSource
from paratrain.metrics import MetricsWriter
from tests.unit.solvers.least_squares import make_solver, random_records

SETTINGS = 'base_lr: 0.1 lr_policy: "fixed" display: 3'


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    read = DatumSource.read

    def slow_read(self: DatumSource, record: int) -> object:
        time.sleep(seconds)
        return read(self, record)

    monkeypatch.setattr(DatumSource, "read", slow_read)


def hints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if "Waiting for data" in entry.getMessage()]


def test_waiting_for_data_is_in_the_metrics_and_hinted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("paratrain.solvers.feeding._HINT_AFTER_S", 0.02)
    slow_down(monkeypatch, 0.01)
    solver = make_solver(random_records(tmp_path), SETTINGS, batch_size=2)
    solver.metrics = MetricsWriter(tmp_path / "run.jsonl")
    with caplog.at_level(logging.INFO, "paratrain"):
        solver.step(10)
    solver.close()
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 3, 6, 9]
    for line in lines[1:]:
        assert line["data_s"] > 0.02
        assert 0.5 < line["data_share"] <= 1
    (hint,) = hints(caplog)
    assert "--data-workers, now" in hint
    assert "LMDB" in hint


def test_no_hint_where_data_is_there_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("paratrain.solvers.feeding._HINT_AFTER_S", 0.02)
    solver = make_solver(random_records(tmp_path), SETTINGS, batch_size=2)
    solver.add_callback(lambda: time.sleep(0.06), lambda: None)  # time to read, on a busy machine too
    solver.step(1)  # the first batch is waited for
    solver.times.reset()
    with caplog.at_level(logging.INFO, "paratrain"):
        solver.step(9)
    solver.close()
    assert not hints(caplog)
