"""Rows of several HDF5 files, as one endless sequence of records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.hdf5 import check_numeric, open_hdf5
from paratrain.data.sharding import Positions
from paratrain.errors import DataError
from paratrain.random import generator

__all__ = ["Hdf5Records"]

Array = npt.NDArray[Any]


class Hdf5Records:
    """The rows of the files that ``source`` lists, file after file; a row is one value of every dataset in ``names``.

    Position p is row p % count of epoch p // count. With ``shuffle``, each epoch has another order of the files and of
    the rows within each, which depends on ``seed`` and ``layer_name`` alone, so that ranks which share the positions
    never see a row twice. One file is held in memory at a time.

    ``source`` is a text file of paths, with white space between them, looked up from the current folder. Raises DataError
    for files that are missing, lack a dataset, or hold rows of different shapes.
    """

    def __init__(
        self, source: str, names: Sequence[str], dtype: npt.DTypeLike, *, shuffle: bool, seed: int, layer_name: str
    ) -> None:
        self._names = list(names)
        self._dtype = np.dtype(dtype)
        self._shuffle = shuffle
        self._key: tuple[int | str, ...] = (seed, "hdf5", layer_name)
        self._paths = _read_list(source)
        self.row_shapes: list[tuple[int, ...]] = []
        """The shape of one row of each dataset."""
        counts = [self._inspect(path) for path in self._paths]
        self._counts = np.array(counts, np.int64)
        self.count = int(self._counts.sum())
        """Rows in all files."""
        if not self.count:
            raise DataError(f"{source}: the files it lists hold no rows")
        self._loaded: int | None = None
        self._arrays: list[Array] = []

    def read(self, positions: Positions, out: Sequence[Array]) -> None:
        """Write the rows at ``positions``, which rise, to the arrays ``out``, one (len(positions), ...) for each name."""
        epochs, offsets = np.divmod(positions.astype(np.int64), self.count)
        for epoch in np.unique(epochs):
            (places,) = np.nonzero(epochs == epoch)
            order = self._permutation(len(self._paths), "files", int(epoch))
            stops = np.cumsum(self._counts[order])
            turns = np.searchsorted(stops, offsets[places], side="right")
            for turn in np.unique(turns):
                file = int(order[turn])
                chosen = places[turns == turn]
                rows = offsets[chosen] - (stops[turn] - self._counts[file])
                self._load(file)
                rows = self._permutation(int(self._counts[file]), "rows", int(epoch), file)[rows]
                for array, source in zip(out, self._arrays, strict=True):
                    array[chosen] = source[rows]

    def _permutation(self, count: int, *name: int | str) -> npt.NDArray[np.int64]:
        if not self._shuffle:
            return np.arange(count)
        return generator(*self._key, *name).permutation(count)

    def _load(self, file: int) -> None:
        if self._loaded == file:
            return
        self._arrays, self._loaded = [], None
        path = self._paths[file]
        try:
            with open_hdf5(path, "r") as opened:
                self._arrays = [opened[name].astype(self._dtype)[...] for name in self._names]
        except (OSError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from None
        if any(array.shape[0] != self._counts[file] for array in self._arrays):
            raise DataError(f"{path}: has changed since it was opened first")
        self._loaded = file

    def _inspect(self, path: str) -> int:
        """Check the datasets of a file; return how many rows it has."""
        with open_hdf5(path, "r") as opened:
            missing = [name for name in self._names if name not in opened]
            if missing:
                raise DataError(
                    f"{path}: has no dataset '{missing[0]}' (tops are named after datasets); it has {', '.join(opened)}"
                )
            datasets = [opened[name] for name in self._names]
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
