"""Rows of several HDF5 files, numbered as one list of records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.hdf5 import check_numeric, open_hdf5
from paratrain.data.kept import Kept
from paratrain.data.prefetch import call_within
from paratrain.errors import DataError

__all__ = ["Hdf5Records"]

Array = npt.NDArray[Any]

_LARGE_BYTES = 1 << 30


class Hdf5Records:
    """The rows of the files that ``source`` lists, file after file; a row is one value of every dataset in ``names``.

    Two files are held in memory at a time, the one that was read from last and one that is read ahead, or the one before; of
    files above 1 GiB only one. Any number of threads may read at once.

    ``source`` is a text file of paths, with white space between them, looked up from the current folder. Raises DataError
    for files that are missing, lack a dataset, or hold rows of different shapes, and for one whose rows have not been read
    after ``time_limit_s``.
    """

    def __init__(self, source: str, names: Sequence[str], dtype: npt.DTypeLike, time_limit_s: float = math.inf) -> None:
        self._time_limit_s = time_limit_s
        self._names = list(names)
        self._dtype = np.dtype(dtype)
        self._paths = _read_list(source)
        self.row_shapes: list[tuple[int, ...]] = []
        """The shape of one row of each dataset."""
        counts = [self._inspect(path) for path in self._paths]
        self.file_counts = counts
        """Rows in each file."""
        self._stops = np.cumsum(counts)
        self.count = int(self._stops[-1])
        """Rows in all files."""
        if not self.count:
            raise DataError(f"{source}: the files it lists hold no rows")
        row_bytes = self._dtype.itemsize * sum(math.prod(shape) for shape in self.row_shapes)
        self._are_large = max(counts) * row_bytes > _LARGE_BYTES
        self._files = Kept(self._load, 1 if self._are_large else 2, "paratrain-hdf5")

    def read(self, records: Sequence[int], out: Sequence[Array]) -> None:
        """Write the rows of these numbers to the arrays ``out``, one (len(records), ...) for each name."""
        files, rows = self._places(records)
        # Those that are there come first, so that none is dropped before it has been read from.
        met = dict.fromkeys(files.tolist())
        for file in sorted(met, key=lambda file: not self._files.has(file)):
            (chosen,) = np.nonzero(files == file)
            for array, source in zip(out, self._file(file), strict=True):
                array[chosen] = source[rows[chosen]]

    def _file(self, file: int) -> list[Array]:
        if self._files.is_ready(file) or self._time_limit_s == math.inf:
            return self._files(file)
        return call_within(
            self._time_limit_s, lambda: self._files(file), lambda: f"{self._paths[file]}: reading its rows"
        )

    def file_of(self, record: int) -> int:
        """Return which of the files holds a row."""
        return int(np.searchsorted(self._stops, record, side="right"))

    def stop_of(self, file: int) -> int:
        """Return the number of the row after the last one of a file."""
        return int(self._stops[file])

    def read_ahead(self, file: int) -> None:
        """Let a thread read a file that will be needed next, unless files are large."""
        if not self._are_large:
            self._files.make_ahead(file)

    def close(self) -> None:
        """End the thread and free the memory."""
        self._files.close()

    def key(self, record: int) -> str:
        """Return the name of a row, for messages."""
        files, rows = self._places([record])
        return f"{self._paths[files[0]]}: row {rows[0]}"

    def _places(self, records: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The file of each row, and which row of it that is."""
        numbers = np.array(records, np.int64)
        files = np.searchsorted(self._stops, numbers, side="right")
        return files, numbers - (self._stops[files] - np.array(self.file_counts)[files])

    def _load(self, file: int, _: int) -> list[Array]:
        path = self._paths[file]
        try:
            with open_hdf5(path, "r") as opened:
                arrays = [opened[name].astype(self._dtype)[...] for name in self._names]
        except (OSError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from None
        if any(array.shape[0] != self.file_counts[file] for array in arrays):
            raise DataError(f"{path}: has changed since it was opened first")
        return arrays

    def _inspect(self, path: str) -> int:
        """Check the datasets of a file; return how many rows it has."""
        with open_hdf5(path, "r") as opened:
            missing = [name for name in self._names if name not in opened]
            if missing:
                raise DataError(
                    f"{path}: has no dataset '{missing[0]}' (tops are named after datasets); it has {', '.join(opened)}"
                )
            try:
                datasets = [opened[name] for name in self._names]
            except KeyError as error:  # a link that leads nowhere
                raise DataError(f"{path}: cannot be read ({error.args[0]})") from None
            for name, dataset in zip(self._names, datasets, strict=True):
                if not getattr(dataset, "shape", ()):
                    raise DataError(f"{path}: '{name}' has no rows; expected a dataset of at least one axis")
                check_numeric(dataset, f"{path}: '{name}'")
                if dataset.shape[0] != datasets[0].shape[0]:
                    raise DataError(
                        f"{path}: '{self._names[0]}' has {datasets[0].shape[0]} rows, '{name}' {dataset.shape[0]}; "
                        "all must have the same number"
                    )
            shapes = [tuple(dataset.shape[1:]) for dataset in datasets]
            count = int(datasets[0].shape[0])
        self.row_shapes = self.row_shapes or shapes
        for name, shape, wanted in zip(self._names, shapes, self.row_shapes, strict=True):
            if shape != wanted:
                raise DataError(f"{path}: rows of '{name}' have shape {shape}; in {self._paths[0]} they have {wanted}")
        return count


def _read_list(source: str) -> list[str]:
    if not source:
        raise DataError("hdf5_data_param.source, a text file with the path of an HDF5 file on each line, is missing")
    try:
        paths = Path(source).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise DataError(f"{source}: no such file (looked up from {Path.cwd()})") from None
    except UnicodeDecodeError:
        raise DataError(f"{source}: is not a text file; expected the path of an HDF5 file on each line") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from None
    if not paths:
        raise DataError(f"{source}: lists no files; expected the path of an HDF5 file on each line")
    return paths
