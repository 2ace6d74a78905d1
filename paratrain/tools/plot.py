"""Draw loss and accuracy: `python -m paratrain.tools.plot METRICS.jsonl OUT.png`.

METRICS.jsonl is what `paratrain train --metrics` wrote: one JSON object a line, either of training (`iteration`,
`loss`, `lr`, `images_per_s` ...) or of a test (`iteration`, `test_net`, `outputs`).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paratrain.errors import DataError, MissingDependencyError, ParatrainError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Metrics", "draw", "main", "read_metrics", "summary"]

Series = dict[int, float]
"""A value by iteration. A resumed run writes some iterations a second time; the last one counts."""


@dataclass
class Metrics:
    """What one file of metrics holds; `tests` by (number of the test net, name of its output)."""

    loss: Series = field(default_factory=dict)
    images_per_s: Series = field(default_factory=dict)
    tests: dict[tuple[int, str], Series] = field(default_factory=dict)


def read_metrics(path: Path) -> Metrics:
    """Read a file of metrics. A last line without its end, as a run leaves that is still going, is passed over.

    Raises DataError where there is no such file, where a line is not what `--metrics` writes, and where there is none.
    """
    metrics = Metrics()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as metrics: {error}") from error
    for number, line in enumerate(lines[:-1], start=1):
        try:
            _add(metrics, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}:{number}: expected a JSON object of `paratrain train --metrics`: {error!r}"
            ) from error
    if not metrics.loss and not metrics.tests:
        raise DataError(f"{path}: holds no metrics yet; is `display` in the solver larger than 0?")
    return metrics


def _add(metrics: Metrics, record: dict[str, Any]) -> None:
    """Enter the record of one line."""
    iteration = int(record["iteration"])
    if "outputs" in record:
        for name, value in record["outputs"].items():
            if not isinstance(value, list):  # an output of several values has no place in a curve
                metrics.tests.setdefault((int(record["test_net"]), name), {})[iteration] = _number(value)
    else:
        metrics.loss[iteration] = _number(record["loss"])
        metrics.images_per_s[iteration] = _number(record["images_per_s"])


def _number(value: Any) -> float:
    """The value, or not-a-number for the null that `--metrics` writes in its place."""
    return math.nan if value is None else float(value)


def summary(metrics: Metrics) -> list[str]:
    """The last value of every test output, and the median speed, in words."""
    lines = []
    for (test_net, name), series in metrics.tests.items():
        last = max(series)
        percent = f" ({100 * series[last]:.1f} %)" if "accuracy" in name.lower() else ""
        lines.append(f"Test net {test_net}, iteration {last}: {name} = {series[last]:.4g}{percent}")
    if metrics.images_per_s:
        speed = statistics.median(metrics.images_per_s.values())
        lines.append(f"Speed: {speed:,.0f} images/s (median of {len(metrics.images_per_s)} displayed iterations)")
    return lines


def draw(metrics: Metrics, path: Path) -> None:
    """Write a PNG of the losses over the iterations and, where a test measured some accuracy, of that below them.

    Raises MissingDependencyError without matplotlib and OSError where `path` cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "drawing", "plot") from error
    accuracies = {key: series for key, series in metrics.tests.items() if "accuracy" in key[1].lower()}
    losses = {key: series for key, series in metrics.tests.items() if "loss" in key[1].lower()}
    row_count = 2 if accuracies else 1
    figure = Figure(figsize=(8, 1 + 3.5 * row_count), layout="constrained")
    rows = figure.subplots(row_count, 1, sharex=True, squeeze=False)[:, 0]
    _draw_series(rows[0], "loss", {"training": metrics.loss, **_labelled(losses)})
    if accuracies:
        _draw_series(rows[1], "accuracy", _labelled(accuracies))
    rows[-1].set_xlabel("iteration")
    figure.savefig(path, dpi=120)


def _labelled(tests: dict[tuple[int, str], Series]) -> dict[str, Series]:
    return {f"test net {test_net}: {name}": series for (test_net, name), series in tests.items()}


def _draw_series(axes: Axes, quantity: str, by_label: dict[str, Series]) -> None:
    for label, series in by_label.items():
        if series:
            iterations = sorted(series)
            marker = "" if label == "training" else "o"
            axes.plot(
                iterations, [series[iteration] for iteration in iterations], label=label, marker=marker, markersize=4
            )
    axes.set_ylabel(quantity)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m paratrain.tools.plot",
        description="Draw loss and accuracy of a training as PNG, and sum them up.",
    )
    parser.add_argument("metrics", type=Path, help="the file that `paratrain train --metrics` wrote")
    parser.add_argument("png", type=Path, help="the picture to write")
    options = parser.parse_args(arguments)
    try:
        metrics = read_metrics(options.metrics)
        draw(metrics, options.png)
    except (ParatrainError, OSError) as error:
        print(f"plot: {error}", file=sys.stderr)
        return 1
    for line in summary(metrics):
        print(line)
    print(f"Plot: {options.png}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
