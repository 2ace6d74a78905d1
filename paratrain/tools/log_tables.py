"""The tables that Caffe's parse_log makes of a log: one of training, one of tests."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path

from paratrain.errors import DataError
from paratrain.tools.runs.run import Run, Series

__all__ = ["write_tables"]

_COLUMNS = ("NumIters", "Seconds", "LearningRate")


def write_tables(run: Run, log_name: str, folder: Path, delimiter: str = ",") -> list[Path]:
    """Write ``<log_name>.train`` and ``<log_name>.test`` to ``folder``, and return their paths.

    Their columns are NumIters, Seconds since training began, LearningRate, and the outputs of the net. A row of training has
    the learning rate of its own iteration, and one of a test the last that was displayed by then (the first, before any).
    Where the log leaves something out, the cell is empty. Outputs of a second test net are columns ``name (#1)``. Raises
    DataError where a file cannot be written.
    """
    training = dict(run.outputs) or {"loss": run.training.get("loss", {})}
    tests = {name if net == 0 else f"{name} (#{net})": series for (net, name), series in run.tests.items()}
    rates = run.training.get("lr", {})
    paths = []
    for kind, outputs, seconds in (("train", training, run.training_seconds), ("test", tests, run.test_seconds)):
        path = folder / f"{log_name}.{kind}"
        try:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
                writer.writerow([*_COLUMNS, *outputs])
                for iteration in sorted({at for series in outputs.values() for at in series}):
                    cells = [seconds.get(iteration), _rate(rates, iteration, exact=kind == "train")]
                    writer.writerow([float(iteration), *cells, *(series.get(iteration) for series in outputs.values())])
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from None
        paths.append(path)
    return paths


def _rate(rates: Mapping[int, float] | Series, iteration: int, *, exact: bool) -> float:
    if iteration in rates or not rates:
        return rates.get(iteration, math.nan)
    if exact:
        return math.nan
    known = sorted(rates)
    return rates[known[max(0, bisect_right(known, iteration) - 1)]]
