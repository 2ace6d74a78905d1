"""Curves of training runs as a picture: loss, accuracy, learning rate, speed and where the time goes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paratrain.errors import DataError, MissingDependencyError
from paratrain.tools.runs.run import PARTS, Run, Series, kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CHARTS", "FORMATS", "PlotOptions", "draw", "summary"]

CHARTS = ("loss", "train loss", "test loss", "accuracy", "lr", "speed", "time")
"""What can be drawn; ``loss`` is that of training and of tests together."""
FORMATS = (".png", ".svg", ".pdf")
_USUAL = ("loss", "accuracy", "lr", "speed", "time")
_UNITS = {"lr": "learning rate", "speed": "images/s", "time": "share of the time", "accuracy": "accuracy"}


@dataclass(frozen=True)
class PlotOptions:
    """How curves are drawn. ``charts`` are some of CHARTS, all that there is where it is empty; ``smooth`` is the count of
    displayed losses of training that are averaged.
    """

    charts: tuple[str, ...] = ()
    against: str = "iterations"
    log_scale: bool = False
    smooth: int = 1
    title: str | None = None


@dataclass(frozen=True)
class _Curve:
    x: list[float]
    y: list[float]
    label: str
    colour: str
    is_test: bool


def summary(run: Run) -> list[str]:
    """The last value of every test output, and the median speed, in words."""
    lines = []
    for (test_net, name), series in run.tests.items():
        if not series:
            continue
        last = max(series)
        percent = f" ({100 * series[last]:.1f} %)" if kind_of(name) == "accuracy" else ""
        lines.append(f"Test net {test_net}, iteration {last}: {name} = {series[last]:.4g}{percent}")
    speeds = run.training.get("images_per_s")
    if speeds:
        speed = statistics.median(speeds.values())
        lines.append(f"Speed: {speed:,.0f} images/s (median of {len(speeds)} displayed iterations)")
    return lines


def draw(runs: Sequence[Run], path: Path, options: PlotOptions | None = None) -> None:
    """Draw the curves of all runs, each run in a colour of its own, to a file of one of FORMATS.

    Raises DataError where a chart is asked for that no run has, and MissingDependencyError without matplotlib.
    """
    options = options or PlotOptions()
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "drawing", "plot") from error
    charts = [chart for chart in options.charts or _USUAL if _has(runs, chart)]
    missing = [chart for chart in options.charts if chart not in charts]
    if missing:
        names = ", ".join(run.name for run in runs)
        raise DataError(f"{names}: nothing to draw for {' and '.join(missing)}{_why(missing)}")
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 10, "axes.titlesize": 11}):
        figure = Figure(figsize=(9, 0.8 + 3.0 * len(charts)), layout="constrained")
        rows = figure.subplots(len(charts), 1, squeeze=False)[:, 0]
        for axes, chart in zip(rows, charts, strict=True):
            if chart == "time" and len(runs) > 1:
                _draw_bars(axes, runs)
                continue
            if chart == "time":
                _draw_split(axes, runs[0], options.against)
            else:
                _draw_curves(axes, _curves(runs, chart, options), options.log_scale and "loss" in chart)
            axes.set_ylabel(_UNITS.get(chart, chart))
            axes.set_xlabel({"iterations": "iteration", "epochs": "epoch"}.get(options.against, options.against))
            axes.grid(visible=True, alpha=0.3)
        title = options.title or (runs[0].name if len(runs) == 1 else None)
        if title:
            figure.suptitle(title)
        try:
            figure.savefig(path, dpi=120)
        except OSError as error:
            raise DataError(f"{path}: the picture cannot be written: {error.strerror}") from None


def _has(runs: Sequence[Run], chart: str) -> bool:
    if chart == "time":
        return any(math.isfinite(run.mean(part)) for run in runs for part in PARTS)
    return any(series for run in runs for _, _, series, _ in _series(run, chart))


def _why(missing: Sequence[str]) -> str:
    return "; metrics have it, a log has not" if set(missing) & {"time", "speed"} else ""


def _series(run: Run, chart: str) -> list[tuple[str, str, Series, bool]]:
    """The curves of a chart: a word for them, their figure, their values, and whether they are a test's."""
    found: list[tuple[str, str, Series, bool]] = []
    if chart in ("loss", "train loss"):
        found.append(("training", "loss", run.training.get("loss", {}), False))
    if chart in ("loss", "test loss"):
        found += [(_of_test(key), key[1], series, True) for key, series in run.named_tests("loss").items()]
    if chart == "accuracy":
        found += [(_of_test(key), key[1], series, True) for key, series in run.named_tests("accuracy").items()]
        found += [(f"training: {name}", name, series, False)
                  for name, series in run.outputs.items() if kind_of(name) == "accuracy"]  # fmt: skip
    if chart in ("lr", "speed"):
        name = {"lr": "lr", "speed": "images_per_s"}[chart]
        found.append(("", name, run.training.get(name, {}), False))
    return [entry for entry in found if entry[2]]


def _of_test(key: tuple[int, str]) -> str:
    return f"test: {key[1]}" if key[0] == 0 else f"test net {key[0]}: {key[1]}"


def _curves(runs: Sequence[Run], chart: str, options: PlotOptions) -> list[_Curve]:
    curves = []
    for number, run in enumerate(runs):
        for offset, (word, figure, series, is_test) in enumerate(_series(run, chart)):
            x, y = run.places(series, options.against, is_test=is_test)
            if figure == "loss" and not is_test:
                y = _smoothed(y, options.smooth)
            parts = [run.name] if len(runs) > 1 else []
            label = _short(": ".join([*parts, *([word] if word else [])]))
            colour = f"C{number if len(runs) > 1 else offset}"
            curves.append(_Curve(x, y, label, colour, is_test))
    return curves


def _short(label: str, most: int = 60) -> str:
    """A label that leaves room for the curves: the beginning and the end of a long one."""
    return label if len(label) <= most else f"{label[: most // 2]}...{label[-most // 2 + 3 :]}"


def _smoothed(values: list[float], count: int) -> list[float]:
    """Means of the last ``count`` values, of fewer at the beginning; what is not a number is left out."""
    found = []
    for end in range(1, len(values) + 1):
        window = [value for value in values[max(0, end - count) : end] if math.isfinite(value)]
        found.append(sum(window) / len(window) if window else math.nan)
    return found if count > 1 else values


def _draw_curves(axes: Axes, curves: Sequence[_Curve], log_scale: bool) -> None:
    for curve in curves:
        few = len(curve.x) <= 60
        marker = "o" if few and curve.is_test else "." if len(curve.x) == 1 else ""
        line = "--" if curve.is_test else "-"
        axes.plot(curve.x, curve.y, label=curve.label, color=curve.colour, linestyle=line, marker=marker, markersize=4)
    if log_scale:
        axes.set_yscale("log")
    axes.margins(x=0.01)
    if any(curve.label for curve in curves):
        axes.legend(fontsize="small")


def _draw_split(axes: Axes, run: Run, against: str) -> None:
    """Where the time of one run goes, from one displayed iteration to the next."""
    series = {part: run.training[part] for part in PARTS if part in run.training}
    iterations = sorted(set.intersection(*(set(one) for one in series.values())))
    sums = {at: sum(one[at] for one in series.values()) for at in iterations}
    kept = [at for at in iterations if sums[at] > 0]
    shares = [[one[at] / sums[at] for at in kept] for one in series.values()]
    x, _ = run.places(dict.fromkeys(kept, 0.0), against)
    axes.stackplot(x, shares, labels=[part.removesuffix("_s") for part in series], alpha=0.85)
    axes.set_ylim(0, 1)
    axes.margins(x=0)
    _legend_above(axes)


def _draw_bars(axes: Axes, runs: Sequence[Run]) -> None:
    """Where the time of several runs goes, as a bar of each: milliseconds of an iteration."""
    known = [run for run in runs if any(math.isfinite(run.mean(part)) for part in PARTS)]
    left = [0.0] * len(known)
    names = [_short(run.name, 30) for run in known]
    for part in PARTS:
        width = [1000 * _per_step(run, part) for run in known]
        axes.barh(names, width, left=left, label=part.removesuffix("_s"), alpha=0.85, height=0.6)
        left = [a + b for a, b in zip(left, width, strict=True)]
    axes.set_ylim(max(len(known), 3) - 0.4, -0.6)
    axes.set_xlabel("ms an iteration, on the root")
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(PARTS), frameon=False)


def _per_step(run: Run, part: str) -> float:
    """The seconds of a part in an iteration, without what is displayed first, which is one iteration and slow."""
    series = run.training.get(part, {})
    iterations = sorted(series)
    if len(iterations) < 2:
        return next(iter(series.values()), 0.0)
    values = [series[at] for at in iterations[1:] if math.isfinite(series[at])]
    return sum(values) / max(1, iterations[-1] - iterations[0])
