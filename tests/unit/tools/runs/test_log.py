from __future__ import annotations

import math
from pathlib import Path

import pytest

from paratrain.errors import DataError
from paratrain.tools.runs import read_log
from tests.paths import GOLDEN


def write(
    path: Path, *messages: str, prefix: str = "I1121 21:06:{:09.6f}  25004 solver.cpp:239] ", step: float = 0.5
) -> Path:
    path.write_text("".join(prefix.format(step * place) + text + "\n" for place, text in enumerate(messages)))
    return path


def test_a_log_of_caffe(tmp_path: Path) -> None:
    run = read_log(GOLDEN / "log/caffe_train.log")
    assert run.training["loss"] == {0: 2.42219, 20: 0.905912, 40: 0.510853, 60: 0.456752, 80: 0.300561, 100: 0.245673}
    assert run.training["lr"] == {0: 0.01, 20: 0.00998503, 40: 0.00997011, 60: 0.00995523, 80: 0.00994042}
    assert run.outputs == {"loss": {0: 2.42219, 20: 0.905912, 40: 0.510853, 60: 0.456752, 80: 0.300561}}
    assert run.tests == {
        (0, "accuracy"): {0: 0.1, 50: 0.861, 100: 0.882},
        (0, "loss"): {0: 2.3676, 50: 0.422759, 100: 0.369736},
    }
    # "Solving LeNet" was at 22.741892, and these lines at 23.555699 and 24.461697 (the last output of the test).
    assert run.training_seconds[20] == pytest.approx(0.813807, abs=1e-6)
    assert run.test_seconds[50] == pytest.approx(1.719805, abs=1e-6)
    assert run.facts["net"] == "LeNet"
    assert run.facts["max_iter"] == 100
    assert run.facts["solver"].startswith("test_iter: 20\n")
    assert run.warnings == []
    assert run.begun_at is None  # glog's classic prefix has no year


def test_numbers_that_are_none_and_what_forks_print(tmp_path: Path) -> None:
    run = read_log(
        write(
            tmp_path / "a.log",
            "Iteration 0, loss = nan",
            "Iteration 5 (3 iter/s, 0.1s/5 iter), 1.5/10.0ep, loss = 1.5e-05",
            "Iteration 5 (3 iter/s, 0.1s/5 iter), lr = 1e-05, m = 0.9",
            "    Train net output #0: loss3/loss = -nan (* 1 = -nan loss)",
            "Iteration 10, loss = inf",
        )
    )
    assert math.isnan(run.training["loss"][0])
    assert run.training["loss"][5] == 1.5e-05
    assert run.training["loss"][10] == math.inf
    assert run.training["lr"] == {5: 1e-05}
    assert math.isnan(run.outputs["loss3/loss"][5])


def test_lines_whose_prefix_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("[1,0]<stderr>: Iteration 5, loss = 2\n  Train net output #0: loss = 2\nIteration 5, lr = 0.5\n")
    run = read_log(path)
    assert (run.training, run.outputs) == ({"loss": {5: 2.0}, "lr": {5: 0.5}}, {"loss": {5: 2.0}})
    with pytest.raises(DataError, match="does not say when its iterations were"):
        run.places(run.training["loss"], "seconds")


def test_an_output_of_several_values_and_several_test_nets(tmp_path: Path) -> None:
    lines = []
    for iteration in (0, 10):
        lines += [f"Iteration {iteration}, Testing net (#0)"]
        lines += [f"    Test net output #{place}: each = 0.{place}" for place in (1, 2)]
        lines += ["    Test net output #3: accuracy = 0.5"]
        lines += [f"Iteration {iteration}, Testing net (#1)", "    Test net output #0: accuracy = 0.75"]
    run = read_log(write(tmp_path / "a.log", *lines))
    assert run.tests == {
        (0, "each[0]"): {0: 0.1, 10: 0.1},
        (0, "each[1]"): {0: 0.2, 10: 0.2},
        (0, "accuracy"): {0: 0.5, 10: 0.5},
        (1, "accuracy"): {0: 0.75, 10: 0.75},
    }


def test_a_run_that_goes_on_from_a_snapshot(tmp_path: Path) -> None:
    """What is done again counts once, and the pause does not."""
    path = write(
        tmp_path / "a.log",
        "Solving n",
        "Iteration 0, loss = 9",
        "Iteration 10, loss = 8",
        "Iteration 20, loss = 7",
        step=1.0,
    )
    with path.open("a") as file:
        for at, text in ((40, "Solving n"), (41, "Iteration 10, loss = 5"), (43, "Iteration 15, loss = 4")):
            file.write(f"I1121 21:06:{at}.000000 1 solver.cpp:1] {text}\n")
    run = read_log(path)
    assert run.training["loss"] == {0: 9.0, 10: 5.0, 15: 4.0}
    assert run.training_seconds == {0: 1.0, 10: 4.0, 15: 6.0}


def test_years_and_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "new.log"
    path.write_text(
        "I20251231 23:59:59.500000 7 a.cpp:1] Solving n\nI20260101 00:00:01.000000 7 a.cpp:1] Iteration 1, loss = 1\n"
    )
    assert read_log(path).training_seconds == {1: 1.5}
    path.write_text(
        "Log file created at: 2025/12/31 23:00:00\n"
        "I1231 23:59:59.500000 7 a.cpp:1] Solving n\nI0101 00:00:01.000000 7 a.cpp:1] Iteration 1, loss = 1\n"
    )
    assert read_log(path).training_seconds == {1: 1.5}
    assert read_log(path).begun_at is not None


def test_what_paratrain_says_of_a_run_and_its_warnings(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.log",
        "Ranks: 2 on 1 node, each on the CPU",
        "Effective batch: 128 images = batch_size 32 x iter_size 2 x 2 ranks",
        "Records: 8000 in layer 'data', 62.5 iterations an epoch; max_iter 4 is 0.064 epochs",
        "Iteration 20 (10 iter/s, 2s/20 iters), loss = 1",
    )
    with path.open("a") as file:
        file.write("W1121 21:06:22.735240 25004 a.py:1] something is odd\nE1121 21:06:22.735240 25004 a.py:1] wrong\n")
    run = read_log(path)
    assert run.facts["iterations_per_epoch"] == 62.5
    assert run.training["images_per_s"] == {20: 1280.0}
    assert run.warnings == ["something is odd", "wrong"]
    assert run.places({0: 1.0, 125: 2.0}, "epochs") == ([0.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "I1121 21:06:22.735240 25004 caffe.cpp:197] Use CPU.\n",
            "no iteration is in this log; is `display` in the solver 0",
        ),
        ("one\ntwo\n", "no iteration is in this log; is it a log at all"),
    ],
)
def test_a_log_with_no_iterations(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.log"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_log(path)
