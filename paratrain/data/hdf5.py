"""HDF5 files: the one module that imports h5py, when it is first needed. Weights, solver states, and rows that are appended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError, MissingDependencyError, SnapshotError
from paratrain.proto import replace_atomically

__all__ = [
    "RowWriter",
    "check_numeric",
    "is_hdf5",
    "open_hdf5",
    "read_solver_state",
    "read_weights",
    "require_h5py",
    "write_solver_state",
    "write_weights",
]

Array = npt.NDArray[Any]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as HDF5 files do; False where it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def require_h5py(purpose: str) -> Any:
    """Return the library. Raises MissingDependencyError, naming the ``purpose``, where it is not installed."""
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("h5py", purpose, "hdf5") from None
    return h5py


def open_hdf5(path: str | os.PathLike[str], mode: str) -> Any:
    """Return an open ``h5py.File``: ``mode`` "r" reads, "w" makes anew.

    Raises DataError that names the path, MissingDependencyError where h5py is not installed.
    """
    h5py = require_h5py(f"the HDF5 file {os.fspath(path)}")
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
    with _written(path, "the weights") as opened:
        for half, layers in (("data", data), ("diff", diff)):
            if layers is None:
                continue
            group = opened.create_group(half)
            for layer, blobs in layers.items():
                layer_group = group.require_group(layer)
                for index, values in blobs.items():
                    layer_group.create_dataset(str(index), data=values)


@contextlib.contextmanager
def _written(path: str | os.PathLike[str], what: str) -> Iterator[Any]:
    """Yield a new ``h5py.File`` that takes the place of ``path`` once it is whole. Raises SnapshotError."""
    file, temporary = Path(path), Path(path)
    try:
        with replace_atomically(file) as temporary, open_hdf5(temporary, "w") as opened:
            yield opened
    except (DataError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).replace(str(temporary), str(file))
        raise SnapshotError(f"{file}: {what} cannot be written: {reason}") from None


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


# -- solver states ---------------------------------------------------------------------------------------------------


def write_solver_state(
    path: str | os.PathLike[str], *, iteration: int, learned_net: str, current_step: int, history: Sequence[Array]
) -> None:
    """Write Caffe's layout: ``iter``, ``learned_net``, ``current_step``, and ``history/INDEX`` for every blob.

    The file is whole or not there. Raises SnapshotError where it cannot be written.
    """
    with _written(path, "the solver state") as opened:
        for name, value in (("iter", iteration), ("current_step", current_step)):
            opened.create_dataset(name, data=np.array([value], np.int32))
        _write_string(opened, "learned_net", learned_net)
        group = opened.create_group("history")
        for index, values in enumerate(history):
            group.create_dataset(str(index), data=values)


def _write_string(opened: Any, name: str, value: str) -> None:
    """As H5LTmake_dataset_string does: one string of fixed length, ended by a zero, which Caffe reads."""
    h5py = require_h5py("snapshot_format: HDF5")
    h5d, h5p, h5s, h5t = h5py.h5d, h5py.h5p, h5py.h5s, h5py.h5t
    data = os.fsencode(value) + b"\0"
    kind = h5t.C_S1.copy()
    kind.set_size(len(data))
    kind.set_strpad(h5t.STR_NULLTERM)
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)  # equal states are equal files
    dataset = h5d.create(opened.id, name.encode(), kind, h5s.create(h5s.SCALAR), properties)
    dataset.write(h5s.ALL, h5s.ALL, np.array(data, f"S{len(data)}"), kind)


def read_solver_state(path: str | os.PathLike[str]) -> tuple[int, str, int, list[Array]]:
    """Return iteration, learned_net (empty where there is none), current_step and the history in a file of Caffe's layout.

    Raises SnapshotError for a file that is missing, damaged or laid out otherwise.
    """
    try:
        with open_hdf5(path, "r") as opened:
            if "iter" not in opened or "history" not in opened:
                raise SnapshotError(
                    f"{path}: expected a solver state, with 'iter' and 'history'; it has {', '.join(opened) or 'nothing'}"
                )
            group = opened["history"]
            numbers = {name: int(np.ravel(opened[name][()])[0]) for name in ("iter", "current_step") if name in opened}
            name = opened["learned_net"][()] if "learned_net" in opened else b""
            text = os.fsdecode(bytes(name).rstrip(b"\0")) if isinstance(name, bytes) else str(name)
            history = [group[str(index)][...] for index in range(len(group))]
    except (DataError, OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise SnapshotError(f"{path}: cannot be read as a solver state ({error})") from None
    return numbers["iter"], text, numbers.get("current_step", 0), history


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
