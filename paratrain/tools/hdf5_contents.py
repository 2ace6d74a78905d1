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


def look_through_hdf5(path: str, files: Sequence[str], kind: str) -> Contents:
    """Describe the datasets of the files; rows are counted along the first axis of datasets, the longest of each file.

    What an HDF5Data layer would refuse is noted as damaged: files that cannot be read, and datasets of other lengths.
    """
    found = Contents(path, kind, sum(stored_bytes(file) for file in files if Path(file).is_file()), 0)
    for file in files:
        try:
            with open_hdf5(file, "r") as opened:
                _add(found, file, opened, several=len(files) > 1)
        except (DataError, OSError, RuntimeError, KeyError) as error:
            found.damaged.append((file, str(error).removeprefix(f"{file}: ")))
    found.read_count = found.count
    return found


def _add(found: Contents, file: str, opened: Any, *, several: bool) -> None:
    datasets: dict[str, Any] = {}
    opened.visititems(lambda name, item: datasets.update({name: item}) if hasattr(item, "dtype") else None)
    for name, dataset in datasets.items():
        shown = f"{file}: {name}" if several else name
        found.datasets.append((shown, tuple(dataset.shape), str(dataset.dtype)))
    lengths = {name: dataset.shape[0] for name, dataset in datasets.items() if dataset.ndim}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        found.damaged.append((file, f"its datasets have different numbers of rows: {described}"))
    if not lengths:
        found.damaged.append((file, "it holds no datasets with rows"))
    found.count += max(lengths.values(), default=0)
    labels = next((datasets[name] for name in _LABEL_NAMES if name in datasets), None)
    if labels is not None and labels.ndim and labels.size == labels.shape[0]:
        values = np.asarray(labels[...]).ravel()
        if np.issubdtype(values.dtype, np.number) and np.array_equal(values, np.rint(values)):
            found.labels += Counter(int(value) for value in values)
