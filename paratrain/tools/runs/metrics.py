"""What ``paratrain train --metrics`` has written: JSON lines, or tables in CSV."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paratrain.errors import DataError
from paratrain.metrics.csv_tables import TRAINING_COLUMNS
from paratrain.tools.runs.clock import RunClock
from paratrain.tools.runs.run import Run

__all__ = ["is_csv", "is_json_lines", "read_csv", "read_metrics"]

_NO_FIGURES = ("time", "iteration", "train_outputs", "ranks")
_CSV_FIGURES = frozenset(TRAINING_COLUMNS) - set(_NO_FIGURES)


def is_json_lines(beginning: str) -> bool:
    """Whether a text begins as JSON lines do."""
    return beginning.lstrip().startswith("{")


def is_csv(beginning: str) -> bool:
    """Whether a text begins as the tables that ``--metrics FILE.csv`` writes."""
    return beginning.startswith("iteration,time,")


def read_metrics(path: Path) -> Run:
    """Read JSON lines. A last line without its end, as a run leaves that is still going or was killed, is passed over.

    Raises DataError where there is no such file, where a line is not what ``--metrics`` writes, and where there is no figure.
    """
    run, clock = Run(path.stem, [path]), RunClock()
    for number, line in enumerate(_read(path).split("\n")[:-1], start=1):
        try:
            _add(run, json.loads(line), clock)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}:{number}: expected a JSON object of `paratrain train --metrics`: {error!r}"
            ) from error
    return _checked(run, path)


def read_csv(path: Path) -> Run:
    """Read a table of displayed iterations, and the tables of tests beside it. Raises DataError, as read_metrics."""
    of_test = re.fullmatch(r"(.+)\.test(?:_\d+)?(\.\w+)", path.name)
    main = path if of_test is None else path.with_name(of_test[1] + of_test[2])
    run, clock = Run(main.stem, [path]), RunClock()
    tables: list[tuple[int | None, Path]] = [(None, main)] if main.is_file() else []
    for beside in sorted(main.parent.glob(f"{_escaped(main.stem)}.test*{main.suffix}")):
        found = re.fullmatch(r"\.test(?:_(\d+))?", beside.name[len(main.stem) : len(beside.name) - len(main.suffix)])
        if found is not None:
            tables.append((int(found[1] or 0), beside))
    for test_net, table in tables:
        rows = list(csv.DictReader(_complete(_read(table)).splitlines()))
        for number, row in enumerate(rows, start=2):
            try:
                _add_row(run, test_net, row, clock)
            except (ValueError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{table}:{number}: expected a row of `paratrain train --metrics FILE.csv`: {error!r}"
                ) from error
    return _checked(run, path)


def _add(run: Run, record: dict[str, Any], clock: RunClock) -> None:
    """Enter the record of one line."""
    now = float(record["time"]) if "time" in record else None
    if "run" in record:
        run.facts = dict(record["run"])
        run.drop_from(int(run.facts["iteration"]))
        if now is not None:
            clock.begin(now)
            run.begun_at = now if run.begun_at is None else run.begun_at
        return
    if "warning" in record:
        run.warnings.append(str(record["warning"]))
        return
    if "layers" in record:
        run.layers = dict(record["layers"])
        return
    iteration = int(record["iteration"])
    if "test_net" in record:
        for name, value in _flat(record["outputs"]).items():
            run.add_test(iteration, int(record["test_net"]), name, value)
        if now is not None:
            run.test_seconds[iteration] = clock.seconds(now)
        return
    run.add_training(iteration, "loss", _number(record["loss"]))
    for name, value in record.items():
        if name not in _NO_FIGURES and name != "loss":
            run.add_training(iteration, name, _number(value))
    for name, value in _flat(record.get("train_outputs", {})).items():
        run.outputs.setdefault(name, {})[iteration] = value
    if "ranks" in record:
        run.ranks[iteration] = {name: [float(value) for value in each] for name, each in record["ranks"].items()}
    if now is not None:
        run.training_seconds[iteration] = clock.seconds(now)


def _add_row(run: Run, test_net: int | None, row: Mapping[str, str], clock: RunClock) -> None:
    iteration = int(row["iteration"])
    seconds = clock.seconds(float(row["time"]))
    known = _CSV_FIGURES if test_net is None else frozenset()
    for name, text in row.items():
        if name in ("iteration", "time") or not text:
            continue
        value = float(text)
        if name in known:
            run.add_training(iteration, name, value)
        elif test_net is None:
            run.outputs.setdefault(name.removeprefix("output "), {})[iteration] = value
        else:
            run.add_test(iteration, test_net, name.removeprefix("output "), value)
    (run.training_seconds if test_net is None else run.test_seconds)[iteration] = seconds


def _flat(outputs: Mapping[str, Any]) -> dict[str, float]:
    """Each value under a name of its own: ``each[0]``, ``each[1]`` for an output of several values."""
    found: dict[str, float] = {}
    for name, value in outputs.items():
        if isinstance(value, list):
            found |= {f"{name}[{index}]": _number(item) for index, item in enumerate(value)}
        else:
            found[name] = _number(value)
    return found


def _number(value: Any) -> float:
    """The value, or not-a-number for the null that JSON lines have in its place."""
    return math.nan if value is None else float(value)


def _checked(run: Run, path: Path) -> Run:
    if run.is_empty:
        raise DataError(f"{path}: holds no metrics yet; is `display` in the solver larger than 0?")
    return run


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as metrics: {error}") from error


def _complete(text: str) -> str:
    """The lines that have their ends."""
    return text[: text.rfind("\n") + 1]


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
