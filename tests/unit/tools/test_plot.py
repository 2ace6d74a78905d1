from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paratrain.errors import DataError
from paratrain.tools import plot

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def of_training(iteration: int, loss: float, images_per_s: float = 100.0) -> dict[str, Any]:
    return {"iteration": iteration, "loss": loss, "lr": 0.01, "images_per_s": images_per_s, "data_s": 0.0}


def of_test(iteration: int, accuracy: float, loss: float) -> dict[str, Any]:
    return {"iteration": iteration, "test_net": 0, "outputs": {"accuracy": accuracy, "loss": loss}}


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def metrics_file(tmp_path: Path) -> Path:
    return write(
        tmp_path / "metrics.jsonl",
        of_test(0, 0.1, 2.3),
        of_training(0, 2.3, 50.0),
        of_training(10, 1.5, 300.0),
        of_training(20, 0.7, 200.0),
        of_test(20, 0.75, 0.8),
    )


def test_read_metrics(metrics_file: Path) -> None:
    metrics = plot.read_metrics(metrics_file)
    assert metrics.loss == {0: 2.3, 10: 1.5, 20: 0.7}
    assert metrics.images_per_s == {0: 50.0, 10: 300.0, 20: 200.0}
    assert metrics.tests == {(0, "accuracy"): {0: 0.1, 20: 0.75}, (0, "loss"): {0: 2.3, 20: 0.8}}


def test_a_resumed_run_overwrites_what_it_repeats(tmp_path: Path) -> None:
    path = write(tmp_path / "m", of_training(0, 3.0), of_training(10, 2.0), of_training(10, 1.9), of_training(20, 1.0))
    assert plot.read_metrics(path).loss == {0: 3.0, 10: 1.9, 20: 1.0}


def test_an_unfinished_last_line_is_passed_over(metrics_file: Path) -> None:
    with metrics_file.open("a") as stream:
        stream.write('{"iteration": 30, "lo')
    assert max(plot.read_metrics(metrics_file).loss) == 20


@pytest.mark.parametrize(
    "line", ["not json", "[1, 2]", '{"iteration": 3}', '{"iteration": 3, "test_net": 0, "outputs": 1}']
)
def test_a_bad_line_is_named(metrics_file: Path, line: str) -> None:
    with metrics_file.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:6: expected a JSON object"):
        plot.read_metrics(metrics_file)


def test_null_is_a_gap_and_lists_are_left_out(tmp_path: Path) -> None:
    record = {"iteration": 5, "test_net": 1, "outputs": {"loss": None, "per_class": [0.5, 0.6]}}
    metrics = plot.read_metrics(
        write(tmp_path / "m", of_training(0, 2.0), {**of_training(5, 0.0), "loss": None}, record)
    )
    assert math.isnan(metrics.loss[5])
    assert list(metrics.tests) == [(1, "loss")]
    plot.draw(metrics, tmp_path / "plot.png")


def test_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        plot.read_metrics(tmp_path / "missing")
    with pytest.raises(DataError, match="no metrics yet"):
        plot.read_metrics(write(tmp_path / "empty"))


def test_summary_takes_the_last_test_and_the_median_speed(metrics_file: Path) -> None:
    assert plot.summary(plot.read_metrics(metrics_file)) == [
        "Test net 0, iteration 20: accuracy = 0.75 (75.0 %)",
        "Test net 0, iteration 20: loss = 0.8",
        "Speed: 200 images/s (median of 3 displayed iterations)",
    ]


def test_command_writes_a_picture(metrics_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "plot.png"
    assert plot.main([str(metrics_file), str(picture)]) == 0
    assert picture.read_bytes().startswith(PNG_SIGNATURE)
    assert "accuracy = 0.75" in capsys.readouterr().out


def test_training_without_a_test_is_drawn_too(tmp_path: Path) -> None:
    path = write(tmp_path / "m", of_training(0, 2.0), of_training(10, 1.0))
    plot.draw(plot.read_metrics(path), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG_SIGNATURE)


def test_bad_input_is_one_line_and_no_picture(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "paratrain.tools.plot", str(tmp_path / "missing"), str(tmp_path / "plot.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("plot: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "plot.png").exists()
