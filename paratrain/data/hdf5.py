"""HDF5 files: the one module that imports h5py, when it is first needed. Weights, and rows that are appended."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError, MissingDependencyError, SnapshotError

__all__ = ["RowWriter", "check_numeric", "is_hdf5", "open_hdf5", "read_weights", "write_weights"]

Array = npt.NDArray[Any]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as HDF5 files do; False where it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def open_hdf5(path: str | os.PathLike[str], mode: str) -> Any:
    """Return an open ``h5py.File``: ``mode`` "r" reads, "w" makes anew.

    Raises DataError that names the path, MissingDependencyError where h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("h5py", f"the HDF5 file {os.fspath(path)}", "hdf5") from None
    if mode == "r" and not Path(path).exists():
        raise DataError(f"{path}: no such file (looked up from {Path.cwd()})")
    try:
        return h5py.File(path, mode)
    except OSError as error:
        what = "is not an HDF5 file, or cannot be read" if mode == "r" else "cannot be written"
        raise DataError(f"{path}: {what} ({error})") from None


# -- weights ---------------------------------------------------------------------------------------------------------


def write_weights(
    path: str | os.PathLike[str],
    data: Mapping[str, Mapping[int, Array]],
    diff: Mapping[str, Mapping[int, Array]] | None = None,
) -> None:
    """Write Caffe's layout: dataset ``data/LAYER/INDEX`` for every parameter, and ``diff/LAYER/INDEX`` where given.

    The file is whole or not there. Raises SnapshotError where it cannot be written.
    """
    file = Path(path)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open_hdf5(temporary, "w") as opened:
            for half, layers in (("data", data), ("diff", diff)):
                if layers is None:
                    continue
                group = opened.create_group(half)
                for layer, blobs in layers.items():
                    layer_group = group.require_group(layer)
                    for index, values in blobs.items():
                        layer_group.create_dataset(str(index), data=values)
        temporary.replace(file)
    except (DataError, OSError, ValueError) as error:
        reason = str(error).replace(str(temporary), str(file))
        raise SnapshotError(f"{file}: the weights cannot be written: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_weights(path: str | os.PathLike[str]) -> dict[str, dict[int, Array]]:
    """Return the parameters in a file of Caffe's layout, ``data/LAYER/INDEX``: values by layer name and index.

    Raises SnapshotError for a file that is missing, damaged or laid out otherwise.
    """
    found: dict[str, dict[int, Array]] = {}
    try:
        with open_hdf5(path, "r") as opened:
            if "data" not in opened or not hasattr(opened["data"], "visititems"):
                raise SnapshotError(
                    f"{path}: has no group 'data', where weights lie; it has {', '.join(opened) or 'nothing'}"
                )

            def visit(name: str, item: Any) -> None:
                layer, _, index = name.rpartition("/")
                if hasattr(item, "dtype") and layer and index.isdecimal():
                    found.setdefault(layer, {})[int(index)] = item[...]

            opened["data"].visititems(visit)
    except (DataError, OSError) as error:
        raise SnapshotError(f"{error}; expected weights") from None
    return found


# -- rows ------------------------------------------------------------------------------------------------------------


class RowWriter:
    """Datasets that grow by a batch of rows at a time, in a new file that is made with the first batch.

    Raises DataError where the file cannot be written or a batch has rows of another shape.
    """

    def __init__(self, path: str | os.PathLike[str], names: Sequence[str]) -> None:
        self.path = path
        self._names = names
        self._file: Any = None
        self._is_closed = False

    def append(self, arrays: Sequence[Array]) -> None:
        """Write one array for each name, (rows, ...), after those written before. What is written is on the disk."""
        assert not self._is_closed, "a new file would take the place of the first"
        first = self._file is None
        if first:
            self._file = open_hdf5(self.path, "w")
        try:
            for name, values in zip(self._names, arrays, strict=True):
                if first:
                    self._file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), chunks=True)
                    continue
                dataset = self._file[name]
                if dataset.shape[1:] != values.shape[1:]:
                    raise DataError(
                        f"{self.path}: dataset '{name}' has rows of {dataset.shape[1:]}, the new ones are {values.shape[1:]}"
                    )
                dataset.resize(len(dataset) + len(values), axis=0)
                dataset[-len(values) :] = values
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error})") from None

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._is_closed = True


def check_numeric(dataset: Any, where: str) -> None:
    """Raise DataError unless a dataset holds numbers."""
    if not np.issubdtype(dataset.dtype, np.number) or np.issubdtype(dataset.dtype, np.complexfloating):
        raise DataError(f"{where}: holds values of type {dataset.dtype}; expected integers or floats")
