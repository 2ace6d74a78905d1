"""What HDF5 files hold: those of an HDF5Data layer, one by itself or several that a text file lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paratrain.data.hdf5 import open_hdf5
from paratrain.errors import DataError
from paratrain.tools.contents import Contents
from paratrain.tools.databases import stored_bytes

__all__ = ["look_through_hdf5"]

_LABEL_NAMES = ("label", "labels", "target", "y")
_READ_UP_TO_BYTES = 1 << 30
_PIECE_BYTES = 1 << 24


def look_through_hdf5(path: str, files: Sequence[str], kind: str) -> Contents:
    """Describe the datasets of the files; rows are counted along the first axis of datasets, the longest of each file.

    Noted as damaged are files and values that cannot be read, and datasets of other lengths, which an HDF5Data layer refuses.
    The values of files above 1 GiB are not read.
    """
    found = Contents(path, kind, sum(stored_bytes(file) for file in files if Path(file).is_file()), 0)
    for file in files:
        try:
            with open_hdf5(file, "r") as opened:
                _add(found, file, opened, several=len(files) > 1)
        except (DataError, OSError, RuntimeError, KeyError) as error:
            found.damaged.append((file, str(error).removeprefix(f"{file}: ")))
    return found


def _add(found: Contents, file: str, opened: Any, *, several: bool) -> None:
    datasets: dict[str, Any] = {}
    # Groups have no shape, and that of a dataset without a dataspace is None.
    opened.visititems(
        lambda name, item: datasets.update({name: item}) if getattr(item, "shape", None) is not None else None
    )
    for name, dataset in datasets.items():
        shown = f"{file}: {name}" if several else name
        found.datasets.append((shown, tuple(dataset.shape), str(dataset.dtype)))
    lengths = {name: dataset.shape[0] for name, dataset in datasets.items() if dataset.ndim}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        found.damaged.append((file, f"its datasets have different numbers of rows: {described}"))
    if not lengths:
        found.damaged.append((file, "it holds no datasets with rows"))
    count = max(lengths.values(), default=0)
    found.count += count
    if stored_bytes(file) <= _READ_UP_TO_BYTES:
        for name, dataset in datasets.items():
            _read_through(dataset, name)
        found.read_count += count
    labels = next((datasets[name] for name in _LABEL_NAMES if name in datasets), None)
    if labels is not None and labels.ndim and labels.size == labels.shape[0]:
        values = np.asarray(labels[...]).ravel()
        is_real = np.issubdtype(values.dtype, np.integer) or np.issubdtype(values.dtype, np.floating)
        if is_real and np.isfinite(values).all() and np.array_equal(values, np.rint(values)):
            found.labels += Counter(int(value) for value in values)


def _read_through(dataset: Any, name: str) -> None:
    """Read all values, a few rows at a time, and drop them. Raises DataError where that is not possible."""
    rows = dataset.shape[0] if dataset.ndim else 0
    step = max(1, _PIECE_BYTES * rows // max(1, dataset.nbytes))
    try:
        for first in range(0, rows, step):
            dataset[first : first + step]
    except (OSError, RuntimeError) as error:
        raise DataError(f"'{name}' cannot be read ({error})") from None
