"""Runs are recorded while they train, and looked at afterwards: plot, report, parse_log, summarize."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from paratrain.tools.report import make_page
from paratrain.tools.runs import Run, open_run
from tests.integration.cli import SMALL_NET, error, figures, paratrain, paratrain_here, write_solver
from tests.paths import GOLDEN, REPOSITORY


@pytest.fixture(scope="module")
def folder(mnist_folder: Path, mpirun: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run on two ranks leaves that was stopped at iteration 6, and went on to 8."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (folder / name).symlink_to(mnist_folder / name)
    settings = "max_iter: 8\ndisplay: 2\ntest_iter: 2\ntest_interval: 4\nsnapshot: 4\n"
    solver = write_solver(folder, settings, net=SMALL_NET.replace("batch_size: 32", "batch_size: 16"))
    recorded = ("--metrics", "run.jsonl", "--metrics", "run.csv", "--tensorboard", "events", "--log-dir", "logs")
    done = paratrain(folder, "train", solver, *recorded, "--iterations", "6", launcher=(mpirun, "-n", "2"))
    assert done.returncode == 0, done.stderr
    done = paratrain(folder, "train", solver, *recorded, "-snapshot", "small_iter_4.solverstate", "--threads", "1")
    assert done.returncode == 0, done.stderr
    return folder


def test_what_a_run_records_of_itself(folder: Path) -> None:
    records = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    first, second = (record["run"] for record in records if "run" in record)
    assert records[0]["run"] == first
    assert (first["iteration"], second["iteration"], first["max_iter"]) == (0, 4, 8)
    assert (len(first["hosts"]), first["parents"], second["parents"]) == (2, [None, 0], [None])
    assert (first["images_per_iteration"], second["images_per_iteration"]) == (32, 32)
    assert first["iterations_per_epoch"] == 250.0
    assert first["command"][:3] == ["paratrain", "train", "small.solver.prototxt"]
    assert "max_iter: 8" in first["solver"]
    assert first["layers"][0]["type"] == "Data"
    layers = [record["layers"] for record in records if "layers" in record]
    assert [one["steps"] for one in layers] == [2, 6, 2, 4]
    names = {layer["name"] for layer in first["layers"]}
    for one in layers:
        assert set(one["forward_s"]) <= names
        assert set(one["backward_s"]) < set(one["forward_s"])
        assert all(seconds > 0 for seconds in one["forward_s"].values())
    displayed = [record for record in records if "loss" in record]
    assert [record["iteration"] for record in displayed] == [0, 2, 4, 4, 6]
    for record in displayed[:3]:  # on two ranks
        assert {len(each) for each in record["ranks"].values()} == {2}
        assert min(record["ranks"]["forward_s"]) > 0
    assert displayed[1]["ranks"]["exchange_s"][0] > 0
    assert "ranks" not in displayed[3]
    assert all(record["time"] >= records[0]["time"] for record in records)


def test_warnings_and_why_a_run_ended(folder: Path) -> None:
    net = SMALL_NET.replace('type: "SoftmaxWithLoss"', 'type: "SoftmaxWithLoss" loss_weight: 3e38')
    assert net != SMALL_NET
    solver = write_solver(folder, "snapshot_after_train: false\n", net=net, name="wild")
    # In a folder of its own: of this one, the newest run is looked at below.
    metrics = folder / "wild" / "metrics.jsonl"
    metrics.parent.mkdir()
    done = paratrain(folder, "train", solver, "--metrics", str(metrics))
    assert done.returncode == 1
    *_, last = open_run(metrics).warnings
    assert last.startswith("The run ends at iteration ")
    assert error(done) in last
    assert "The run ends at iteration" in make_page(open_run(metrics))


def test_json_lines_and_tables_and_the_log_tell_the_same(folder: Path) -> None:
    lines, tables, log = (open_run(folder / name) for name in ("run.jsonl", "run.csv", "logs/paratrain.INFO"))
    assert lines.last_iteration == tables.last_iteration == 8
    assert lines.tests == tables.tests
    assert {at: round(loss, 4) for at, loss in lines.training["loss"].items()} == {
        at: round(loss, 4) for at, loss in tables.training["loss"].items()
    }
    for at, loss in log.training["loss"].items():  # of the second part; the log has the last pass too
        if at < 8:
            assert lines.training["loss"][at] == pytest.approx(loss, rel=1e-5)
    assert log.facts["iterations_per_epoch"] == 250.0
    row_counts = [len((folder / name).read_text().splitlines()) - 1 for name in ("run.csv", "run.test.csv")]
    assert sum(row_counts) == len(figures(folder / "run.jsonl"))
    assert len(list((folder / "events").iterdir())) == 2


def test_report_and_plot_of_a_folder(folder: Path) -> None:
    done = paratrain_here(folder, "report", ".", "-o", "page.html")
    assert (done.returncode, done.stdout) == (0, "Report: page.html\n"), done.stderr
    page = (folder / "page.html").read_text()
    assert "paratrain train small.solver.prototxt" in page
    assert "Each layer on the root, in the mean of 4 iterations" in page
    done = paratrain_here(
        folder,
        "plot",
        "mine=.",
        str(GOLDEN / "log/caffe_train.log"),
        "-o",
        "a.svg",
        "--against",
        "seconds",
        "--show",
        "loss",
    )
    assert done.returncode == 0, done.stderr
    assert "mine: Test net 0, iteration 8: accuracy = " in done.stdout
    assert "caffe_train.log: Test net 0, iteration 100: accuracy = 0.882 (88.2 %)" in done.stdout
    assert (folder / "a.svg").read_text().startswith("<?xml")


def test_caffes_way_to_plot_and_to_parse(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "log/caffe_train.log", tmp_path / "a.log")
    for number in (0, 3):
        done = paratrain_here(tmp_path, "plot", str(number), f"{number}.svg", "a.log")
        assert done.returncode == 0, done.stderr
        text = (tmp_path / f"{number}.svg").read_text()
        assert (">seconds<" in text, ">iteration<" in text) == (number % 2 == 1, number % 2 == 0)
        assert f">{('accuracy', 'test loss', 'learning rate', 'train loss')[number // 2]}<" in text
    done = paratrain_here(tmp_path, "parse_log", "a.log", ".", "--verbose")
    assert (done.returncode, done.stdout) == (0, "Wrote a.log.train\nWrote a.log.test\n"), done.stderr
    assert (tmp_path / "a.log.test").read_text().startswith("NumIters,Seconds,LearningRate,accuracy,loss\n0.0,")


def test_the_commands_of_the_page_in_the_docs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those that train, which the help of `train` has, too."""
    text = (REPOSITORY / "docs/plots_and_reports.md").read_text()
    (tmp_path / "runs/lenet").mkdir(parents=True)
    (tmp_path / "tables").mkdir()
    for name in ("run.jsonl", "small.jsonl", "runs/lenet/run.jsonl"):
        shutil.copy(folder / "run.jsonl", tmp_path / name)
    for name in ("large.log", "first.log", "second.log", "train.log"):
        shutil.copy(GOLDEN / "log/caffe_train.log", tmp_path / name)
    for name in ("train_val.prototxt", "deploy.prototxt"):
        (tmp_path / name).write_text(SMALL_NET)
    shutil.copy(folder / "small_iter_8.caffemodel", tmp_path / "net.caffemodel")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)
    commands = [
        shlex.split(line, comments=True) for kind, block in blocks if kind == "sh" for line in block.splitlines()
    ]
    commands = [words[1:] for words in commands if words[:1] == ["paratrain"] and words[1] != "train"]
    assert len(commands) == 11
    for words in commands:
        done = paratrain_here(tmp_path, *words)
        assert done.returncode == 0, (words, done.stderr)
    monkeypatch.chdir(tmp_path)
    for block in reversed([block for kind, block in blocks if kind == "python"]):
        solver = SimpleNamespace()
        exec(block, {"solver": solver, "print": lambda *values: None})
    solver.metrics.close()


def test_summarize(folder: Path) -> None:
    done = paratrain_here(folder, "summarize", "small.net.prototxt", "small_iter_8.caffemodel")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fits") == 6
    test = paratrain_here(folder, "summarize", "small.solver.prototxt", "-phase", "TEST")
    assert "Accuracy" in test.stdout
    assert "Accuracy" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "none.jsonl"], "none.jsonl: cannot be read: No such file or directory"),
        (["report", "empty"], "no run is in this folder"),
        (["report", "cut.jsonl"], "cut.jsonl: holds no metrics yet"),
        (["report", "good.jsonl", "-o", "empty"], "empty: is a folder; give the name of a file"),
        (["report", "good.jsonl", "-o", "none/a.html"], "none/a.html"),
        (["report", "good.jsonl", "--topology", "none.json"], "none.json: cannot be read"),
        (["plot", "net.prototxt"], "net.prototxt: is neither a log in Caffe's form nor metrics"),
        (["plot", "started.log"], "started.log: no iteration is in this log"),
        (["plot", "good.jsonl", "--show", "accuracy"], "good: nothing to draw for accuracy"),
        (["plot", "good.jsonl", "--against", "epochs"], "give --epoch-iterations N"),
        (["parse_log", "started.log", "."], "started.log: no iteration is in this log"),
        (["parse_log", "good.jsonl", "none"], "none: the folder for the tables does not exist; make it first"),
        (["parse_log", "empty", "."], "empty: is a folder; give the log itself"),
        (["summarize", "none.prototxt"], "none.prototxt"),
        (["summarize", "net.prototxt", "good.jsonl"], "good.jsonl"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "net.prototxt").write_text(SMALL_NET)
    (tmp_path / "cut.jsonl").write_text('{"iteration": 3, "lo')
    (tmp_path / "good.jsonl").write_text('{"iteration": 3, "loss": 1.0}\n')
    (tmp_path / "started.log").write_text("I1121 21:06:22.735240 25004 caffe.cpp:197] Use CPU.\n")
    assert message in error(paratrain_here(tmp_path, *arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot", "a.log", "-o", "a.gif"], "a.gif: the name must end in .png, .svg or .pdf"),
        (["plot", "a.log", "--show", "acuracy"], "did you mean 'accuracy'?"),
        (["plot", "9", "a.png", "a.log"], "chart type 9 is not one of 0 to 7"),
        (["plot", "--type", "3", "--show", "lr", "a.log"], "leave --show and --against out"),
        (["parse_log", "a.log", ".", "--delimiter", "ab"], "'ab' is not one character"),
        (["summarize", "w.caffemodel", "x.caffemodel"], "give the net first"),
    ],
)
def test_commands_that_cannot_be_understood(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "w.caffemodel").touch()
    done = paratrain_here(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    from paratrain.launch.plot import _tell_apart

    runs = [Run("a", [Path("x/a.log")]), Run("a", [Path("y/a.log")]), Run("b", [Path("b")]), Run("c", [Path("c")])]
    _tell_apart(runs)
    assert [run.name for run in runs] == ["x/a", "y/a", "b", "c"]
    same = [Run("a", [Path("a")]), Run("a", [Path("a")])]
    _tell_apart(same)
    assert [run.name for run in same] == ["a (1)", "a (2)"]
