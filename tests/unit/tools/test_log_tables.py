from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from paratrain.errors import DataError
from paratrain.tools.log_tables import write_tables
from paratrain.tools.runs import Run, read_log
from tests.paths import GOLDEN


def test_the_tables_of_a_log_of_caffe(tmp_path: Path) -> None:
    """Numbers read off the log by eye. Caffe's script has the same but for LearningRate, where it is a row behind."""
    run = read_log(GOLDEN / "log/caffe_train.log")
    train, test = write_tables(run, "caffe.log", tmp_path)
    assert (train.name, test.name) == ("caffe.log.train", "caffe.log.test")
    assert train.read_text().splitlines() == [
        "NumIters,Seconds,LearningRate,loss",
        "0.0,0.364782,0.01,2.42219",
        "20.0,0.813807,0.00998503,0.905912",
        "40.0,1.221402,0.00997011,0.510853",
        "60.0,1.943955,0.00995523,0.456752",
        "80.0,2.357964,0.00994042,0.300561",
    ]
    assert test.read_text().splitlines() == [
        "NumIters,Seconds,LearningRate,accuracy,loss",
        "0.0,0.339017,0.01,0.1,2.3676",
        "50.0,1.719805,0.00997011,0.861,0.422759",
        "100.0,3.073523,0.00994042,0.882,0.369736",
    ]


def test_what_is_missing_is_left_empty(tmp_path: Path) -> None:
    """A log whose first test has one output less: Caffe's script stops at it."""
    run = Run("r", tests={(0, "a"): {0: 1.0, 10: 2.0}, (0, "b"): {10: 3.0}, (1, "a"): {10: 4.0}})
    run.training["loss"] = {10: 0.5}
    train, test = write_tables(run, "r", tmp_path, ";")
    with test.open(newline="") as file:
        rows = list(csv.reader(file, delimiter=";"))
    assert rows == [
        ["NumIters", "Seconds", "LearningRate", "a", "b", "a (#1)"],
        ["0.0", "", "nan", "1.0", "", ""],
        ["10.0", "", "nan", "2.0", "3.0", "4.0"],
    ]
    assert train.read_text() == "NumIters;Seconds;LearningRate;loss\n10.0;;nan;0.5\n"
    assert math.isnan(float(rows[1][2]))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        write_tables(Run("r"), "r", tmp_path / "none")
