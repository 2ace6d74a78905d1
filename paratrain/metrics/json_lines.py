"""The figures of a training run as JSON lines: one object a line, in the order in which they came."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from paratrain.errors import ParatrainError
from paratrain.metrics.sink import Figure

__all__ = ["MetricsWriter"]


class MetricsWriter:
    """Writes one line per call, flushed at once, so that a reader can follow a run.

    ``append`` goes on after what the file holds (for a resumed run), after the line that a killed run has not finished; otherwise
    the file starts anew. Raises ParatrainError where the file cannot be opened or written.
    """

    def __init__(self, path: str | Path, *, append: bool = False) -> None:
        self.path = Path(path)
        try:
            if append:
                _drop_cut_line(self.path)
            self._file: TextIO = self.path.open("a" if append else "w", encoding="utf-8")
        except OSError as error:
            raise ParatrainError(f"cannot write metrics to '{path}': {error.strerror}") from None

    def write(self, **figures: Figure) -> None:
        """Write one line."""
        try:
            self._file.write(json.dumps({name: _finite(value) for name, value in figures.items()}) + "\n")
            self._file.flush()
        except OSError as error:
            raise ParatrainError(f"cannot write metrics to '{self.path}': {error.strerror}") from None

    def close(self) -> None:
        """Close the file; nothing can be written any more."""
        self._file.close()


def _drop_cut_line(path: Path) -> None:
    """Cut off what follows the last line end of the file; a file that is not there stays so."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        while end > 0:
            begin = max(0, end - 4096)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                file.truncate(begin + found + 1)
                return
            end = begin
        file.truncate(0)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
