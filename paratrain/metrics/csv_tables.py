"""The figures of a training run as tables, for spreadsheets and for whatever else reads CSV."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from paratrain.errors import ParatrainError
from paratrain.metrics.sink import Figure

__all__ = ["TRAINING_COLUMNS", "CsvWriter", "table_of_tests"]

logger = logging.getLogger(__name__)

# A table must have its columns before its first row, those of several ranks included: a run may go on with more ranks.
TRAINING_COLUMNS = (
    "iteration", "time", "loss", "loss_min", "loss_max", "lr", "images_per_s", "data_s", "forward_s", "backward_s",
    "exchange_s", "update_s", "exchange_predicted_s", "data_share", "bad_records",
)  # fmt: skip
_TEST = ("iteration", "time")


def table_of_tests(path: Path, test_net: int) -> Path:
    """Where the scores of a test net stand: ``run.test.csv`` beside ``run.csv``, ``run.test_1.csv`` for test net 1."""
    return path.with_suffix(f".test{f'_{test_net}' if test_net else ''}{path.suffix}")


class CsvWriter:
    """Writes displayed iterations to ``path``, and the scores of each test net to a table beside it; flushed at once.

    The outputs of a net are columns of their own after the others; one of several values is ``name[0]``, ``name[1]`` ... The
    ``ranks`` of a record, and records of other kinds, have no place in these tables. ``append`` goes on after what the
    files hold. Raises ParatrainError where a file cannot be opened or written.
    """

    def __init__(self, path: str | Path, *, append: bool = False) -> None:
        self.path = Path(path)
        self._append = append
        self._tables: dict[int | None, _Table] = {}
        try:
            self.path.open("a").close()  # say at once that it cannot be written
            if not append:
                self.path.write_text("")
        except OSError as error:
            raise ParatrainError(f"cannot write metrics to '{path}': {error.strerror}") from None

    def write(self, **figures: Figure) -> None:
        """Write one row, where the record is a displayed iteration or a test."""
        outputs = figures.get("train_outputs", figures.get("outputs"))
        if "iteration" not in figures or not ("loss" in figures or "test_net" in figures):
            return
        net = figures.get("test_net")
        test_net = net if isinstance(net, int) else None
        columns = TRAINING_COLUMNS if test_net is None else _TEST
        row = {name: value for name, value in figures.items() if name in columns}
        row |= _columns(outputs if isinstance(outputs, Mapping) else {}, columns)
        try:
            if test_net not in self._tables:
                path = self.path if test_net is None else table_of_tests(self.path, test_net)
                self._tables[test_net] = _Table(path, columns, row, append=self._append)
            self._tables[test_net].add(row)
        except OSError as error:
            raise ParatrainError(f"cannot write metrics to '{error.filename or self.path}': {error.strerror}") from None

    def close(self) -> None:
        """Close the files."""
        for table in self._tables.values():
            table.file.close()


class _Table:
    """One file: the columns of ``first``, a row, after ``columns``; those that the file has where it is gone on with."""

    def __init__(self, path: Path, columns: Sequence[str], first: Mapping[str, Any], *, append: bool) -> None:
        self._columns = [*columns, *(name for name in first if name not in columns)]
        begun = append and path.is_file() and path.stat().st_size > 0
        if begun:
            with path.open(newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file), self._columns)
        self.file: TextIO = path.open("a" if append else "w", newline="", encoding="utf-8")
        self._has_warned = False
        if not begun:
            self._write(self._columns)

    def add(self, row: Mapping[str, Any]) -> None:
        left_out = [name for name in row if name not in self._columns]
        if left_out and not self._has_warned:
            self._has_warned = True
            logger.warning("%s has no columns for %s: left out there", self.file.name, ", ".join(left_out))
        self._write([row.get(name, "") for name in self._columns])

    def _write(self, cells: Sequence[object]) -> None:
        csv.writer(self.file, lineterminator="\n").writerow(cells)
        self.file.flush()


def _columns(outputs: Mapping[str, Any], taken: Sequence[str]) -> dict[str, Any]:
    """The columns of a net's outputs; an output that is named as another column is ``output NAME``."""
    found: dict[str, Any] = {}
    for name, value in outputs.items():
        column = f"output {name}" if name in taken else name
        if isinstance(value, Sequence) and not isinstance(value, str):
            found |= {f"{column}[{index}]": item for index, item in enumerate(value)}
        else:
            found[column] = value
    return found
