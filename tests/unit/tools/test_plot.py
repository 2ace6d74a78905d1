from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from paratrain.errors import DataError, MissingDependencyError
from paratrain.tools import plot
from paratrain.tools.runs import Run, open_run
from tests.paths import GOLDEN
from tests.unit.tools.report.many_ranks import many_ranks


def small_run(name: str = "small", factor: float = 1.0) -> Run:
    run = Run(name, facts={"iterations_per_epoch": 10.0})
    for at, loss, speed in ((0, 2.3, 50.0), (10, math.nan, 300.0), (20, 0.7, 200.0)):
        run.add_training(at, "loss", factor * loss)
        run.add_training(at, "lr", 0.01)
        run.add_training(at, "images_per_s", speed)
        run.training_seconds[at] = 2.0 * at
    for at, accuracy in ((0, 0.1), (20, 0.75)):
        run.add_test(at, 0, "accuracy", accuracy)
        run.add_test(at, 0, "loss", 1.0 - accuracy)
        run.test_seconds[at] = 2.0 * at
    return run


def texts(path: Path) -> list[str]:
    """The texts of a picture in SVG."""
    return [re.sub("<[^>]*>", "", text) for text in re.findall(r"<text.*?</text>", path.read_text(), re.DOTALL)]


@pytest.mark.parametrize(("suffix", "beginning"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_formats(tmp_path: Path, suffix: str, beginning: bytes) -> None:
    plot.draw([small_run()], tmp_path / f"a{suffix}", plot.PlotOptions(("loss",)))
    assert (tmp_path / f"a{suffix}").read_bytes().startswith(beginning)


def test_all_charts_of_one_run(tmp_path: Path) -> None:
    plot.draw([open_run(many_ranks(tmp_path / "many.jsonl", iteration_count=200))], tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    for text in ("loss", "accuracy", "learning rate", "images/s", "share of the time", "exchange", "training", "many"):
        assert text in shown, text
    assert shown.count("iteration") == 5


def test_several_runs_beside_each_other(tmp_path: Path) -> None:
    runs = [small_run("one"), small_run("two", 2.0), open_run(GOLDEN / "log/caffe_train.log")]
    plot.draw(runs, tmp_path / "a.svg", plot.PlotOptions(("loss", "lr"), against="seconds", log_scale=True, title="T"))
    shown = texts(tmp_path / "a.svg")
    for name in ("one", "two", "caffe_train.log"):
        assert {f"{name}: training", f"{name}: test: loss", name} <= set(shown)
    assert shown.count("seconds") == 2
    assert "T" in shown


def test_time_of_several_runs(tmp_path: Path) -> None:
    runs = [small_run("one"), small_run("two")]
    for run, seconds in zip(runs, (1.0, 3.0), strict=True):
        run.training["update_s"] = {0: 99.0, 10: seconds, 20: seconds}  # the first iteration is not counted
    plot.draw(runs, tmp_path / "a.svg", plot.PlotOptions(("time",)))
    assert {"one", "two", "update", "ms an iteration, on the root"} <= set(texts(tmp_path / "a.svg"))
    assert [plot._per_step(run, "update_s") for run in runs] == [0.1, 0.3]


def test_places_along_the_bottom() -> None:
    run = small_run()
    lr = run.training["lr"]
    assert run.places(lr, "iterations")[0] == [0.0, 10.0, 20.0]
    assert run.places(lr, "seconds")[0] == [0.0, 20.0, 40.0]
    assert run.places(lr, "epochs")[0] == [0.0, 1.0, 2.0]


def test_what_is_not_there_cannot_be_drawn(tmp_path: Path) -> None:
    run = open_run(GOLDEN / "log/caffe_train.log")
    with pytest.raises(DataError, match=r"caffe_train\.log: nothing to draw for speed and time; metrics have it"):
        plot.draw([run], tmp_path / "a.png", plot.PlotOptions(("loss", "speed", "time")))
    with pytest.raises(DataError, match="does not say how many iterations are an epoch; give --epoch-iterations N"):
        plot.draw([run], tmp_path / "a.png", plot.PlotOptions(against="epochs"))
    run.training_seconds.clear()
    with pytest.raises(DataError, match="does not say when its iterations were"):
        plot.draw([run], tmp_path / "a.png", plot.PlotOptions(("lr",), against="seconds"))
    with pytest.raises(DataError, match="the picture cannot be written"):
        plot.draw([run], tmp_path / "none/a.png", plot.PlotOptions(("lr",)))
    assert not (tmp_path / "a.png").exists()


def test_smoothing_leaves_out_what_is_no_number() -> None:
    assert plot._smoothed([1.0, 3.0, math.nan, 5.0], 2) == [1.0, 2.0, 3.0, 5.0]
    assert plot._smoothed([1.0, 3.0], 1) == [1.0, 3.0]


def test_summary_takes_the_last_test_and_the_median_speed() -> None:
    assert plot.summary(small_run()) == [
        "Test net 0, iteration 20: accuracy = 0.75 (75.0 %)",
        "Test net 0, iteration 20: loss = 0.25",
        "Speed: 200 images/s (median of 3 displayed iterations)",
    ]


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'paratrain\[plot\]'"):
        plot.draw([small_run()], tmp_path / "a.png")
