from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from paratrain.errors import ParatrainError
from paratrain.metrics import MetricsWriter


def test_each_call_is_a_line_that_can_be_read_at_once(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m.jsonl")
    writer.write(iteration=0, loss=2.5)
    writer.write(iteration=20, test_net=0, outputs={"accuracy": 0.5, "each": [0.1, 0.2]})
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    writer.close()
    assert [json.loads(line) for line in lines] == [
        {"iteration": 0, "loss": 2.5},
        {"iteration": 20, "test_net": 0, "outputs": {"accuracy": 0.5, "each": [0.1, 0.2]}},
    ]


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m.jsonl")
    writer.write(loss=math.nan, lr=math.inf, outputs={"a": [math.nan, 1.0]})
    writer.close()
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"loss": None, "lr": None, "outputs": {"a": [None, 1.0]}}


def test_a_new_run_starts_anew_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    for append, lines in ((False, 1), (True, 2), (False, 1)):
        writer = MetricsWriter(path, append=append)
        writer.write(iteration=1)
        writer.close()
        assert len(path.read_text().splitlines()) == lines


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ParatrainError, match="No such file or directory"):
        MetricsWriter(tmp_path / "none" / "m.jsonl")


@pytest.mark.parametrize("length", [0, 1, 5000])
def test_what_a_killed_run_has_not_finished_is_cut_off(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"iteration": 1}\n' + "x" * length)
    writer = MetricsWriter(path, append=True)
    writer.write(iteration=2)
    writer.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"iteration": 1}, {"iteration": 2}]


def test_a_file_of_one_line_without_an_end_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"iter')
    writer = MetricsWriter(path, append=True)
    writer.write(iteration=2)
    writer.close()
    assert path.read_text() == '{"iteration": 2}\n'
