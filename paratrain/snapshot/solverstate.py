"""The solver's state as Caffe's ``.solverstate``: the iteration, the history of the update, and where the weights lie.

Caffe keeps one history blob for each parameter of ``learnable_params``, BatchNorm's running statistics included, and
solvers of two histories (Adam, AdaDelta) append all of the second after all of the first. In memory a history is one flat
array laid out like the values that learn; statistics and frozen parameters have none, and stand in the file as zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.hdf5 import is_hdf5, read_solver_state
from paratrain.errors import SnapshotError
from paratrain.net import Parameters
from paratrain.proto import NetParameter, SolverState, blob_to_array, read_binary

__all__ = [
    "POLICY_FIELDS",
    "SavedState",
    "check_history",
    "find_learned_net",
    "load_history",
    "read_state",
    "shape_history",
]

Flat = npt.NDArray[Any]

POLICY_FIELDS = ("minimum_loss", "iter_last_event")


@dataclass(frozen=True)
class SavedState:
    """A solver state as a file holds it."""

    iteration: int
    learned_net: str
    """Where the weights were written; empty where the file does not say."""
    current_step: int
    history: Sequence[npt.NDArray[Any]]
    has_legacy_shapes: bool = False
    """From before blobs had any number of axes: shapes are filled up with ones in front."""
    policy: Mapping[str, float] = field(default_factory=dict)
    """What intel/caffe's policy ``plateau`` keeps in a binary state."""


def shape_history(parameters: Parameters, history: Sequence[Flat]) -> list[npt.NDArray[Any]]:
    """The flat histories as Caffe's blobs, views of them; those of statistics and frozen parameters are zeros."""
    return [
        np.zeros(entry.blob.shape, flat.dtype)
        if entry.is_statistic or entry.is_frozen
        else flat[entry.start : entry.stop].reshape(entry.blob.shape)
        for flat in history
        for entry in parameters.entries
    ]


def read_state(path: str | Path) -> SavedState:
    """Read a solver state, binary or HDF5. Raises SnapshotError for a file that is missing, cut, or holds something else."""
    if is_hdf5(path):
        try:
            return SavedState(*read_solver_state(path))
        except SnapshotError as error:
            if "it has data" in str(error):
                hint = _WEIGHTS_HINT.replace(".solverstate", ".solverstate.h5").format(path=path)
                raise SnapshotError(f"{error}{hint}") from None
            raise
    try:
        state = read_binary(path, SolverState)
    except SnapshotError as error:
        if _is_model(path):
            raise SnapshotError(f"{error}{_WEIGHTS_HINT.format(path=path)}") from None
        raise
    if not state.HasField("iter"):
        raise SnapshotError(f"{path}: expected a SolverState, and this names no iteration")
    try:
        history = [blob_to_array(saved) for saved in state.history]
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}") from None
    legacy = any(not saved.HasField("shape") for saved in state.history)
    policy = {name: getattr(state, name) for name in POLICY_FIELDS if state.HasField(name)}
    return SavedState(state.iter, state.learned_net, state.current_step, history, legacy, policy)


_WEIGHTS_HINT = "; give the .solverstate beside it, or start from these weights with -weights {path}"


def _is_model(path: str | Path) -> bool:
    try:
        read_binary(path, NetParameter)
    except SnapshotError:
        return False
    return True


def check_history(
    state: SavedState, path: str | Path, parameters: Parameters, history_count: int, solver_type: str
) -> None:
    """Raise SnapshotError where ``state``, read from ``path``, is of another net or of another type of solver."""
    entries = parameters.entries
    wanted = len(entries) * history_count
    if len(state.history) != wanted:
        raise SnapshotError(
            f"{path}: holds {len(state.history)} history blobs; solver type {solver_type} keeps {history_count} for each of "
            f"this net's {len(entries)} parameters, {wanted} in all: the state is of another net or another type of solver"
        )
    for index, saved in enumerate(state.history):
        entry = entries[index % len(entries)]
        found, wanted_shape = saved.shape, entry.blob.shape
        legacy = (1,) * (len(found) - len(wanted_shape)) + wanted_shape
        if found != wanted_shape and not (state.has_legacy_shapes and found == legacy):
            raise SnapshotError(
                f"{path}: the history of parameter {entry.label} has shape {found}, the parameter {wanted_shape}: "
                "the state is of another net"
            )


def load_history(
    state: SavedState, parameters: Parameters, history: Sequence[Flat], owned: Sequence[tuple[int, int]]
) -> None:
    """Copy the histories of a state that :func:`check_history` has passed into the flat arrays ``history``, as far as they
    lie in the parts ``owned``, each from its first number up to its second; the rest is left untouched, and takes no memory.
    """
    entries = parameters.entries
    for index, saved in enumerate(state.history):
        entry, flat = entries[index % len(entries)], history[index // len(entries)]
        if not (entry.is_statistic or entry.is_frozen):
            values = saved.reshape(-1)
            for first, last in owned:
                start, stop = max(first, entry.start), min(last, entry.stop)
                if start < stop:
                    flat[start:stop] = values[start - entry.start : stop - entry.start]


def find_learned_net(state: SavedState, path: str | Path) -> Path | None:
    """Return the caffemodel that belongs to a state read from ``path``; None where the state names none.

    It is looked up as written, then beside the state, so that a folder of snapshots may be moved. Raises SnapshotError.
    """
    if not state.learned_net:
        return None
    written = Path(state.learned_net)
    beside = Path(path).parent / written.name
    for candidate in (written, beside):
        if candidate.is_file():
            return candidate
    raise SnapshotError(
        f"{path}: belongs to the weights '{written}', which are not there (looked up from {Path.cwd()}), "
        f"nor is '{written.name}' beside the state; bring both files back together"
    )
