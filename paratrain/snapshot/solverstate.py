"""The solver's state as Caffe's ``.solverstate``: the iteration, the history of the update, and where the weights lie.

Caffe keeps one history blob for each parameter of ``learnable_params``, BatchNorm's running statistics included, and
solvers of two histories (Adam, AdaDelta) append all of the second after all of the first. In memory a history is one flat
array laid out like the learnable values; the statistics have none, and stand in the file as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import SnapshotError
from paratrain.net import Parameters
from paratrain.proto import (
    NetParameter,
    SolverState,
    array_to_blob,
    blob_shape,
    blob_to_array,
    read_binary,
    write_binary,
)

__all__ = ["check_history", "find_learned_net", "load_history", "read_state", "write_state"]

Flat = npt.NDArray[Any]


def write_state(
    path: str | Path,
    *,
    iteration: int,
    learned_net: str,
    current_step: int,
    parameters: Parameters,
    history: Sequence[Flat],
) -> None:
    """Write a solver state; the file is whole or not there. Raises SnapshotError where it cannot be written.

    ``history`` holds the flat arrays, each as long as the learnable values.
    """
    state = SolverState(iter=iteration, learned_net=learned_net, current_step=current_step)
    for flat in history:
        for entry in parameters.entries:
            shape = entry.blob.shape
            values = (
                np.zeros(shape, flat.dtype) if entry.is_statistic else flat[entry.start : entry.stop].reshape(shape)
            )
            array_to_blob(values, state.history.add())
    write_binary(path, state)


def read_state(path: str | Path) -> SolverState:
    """Read a solver state. Raises SnapshotError for a file that is missing, cut, or holds something else."""
    try:
        state = read_binary(path, SolverState)
    except SnapshotError as error:
        if _is_model(path):
            raise SnapshotError(
                f"{error}; give the .solverstate beside it, or start from these weights with -weights {path}"
            ) from None
        raise
    if not state.HasField("iter"):
        raise SnapshotError(f"{path}: expected a SolverState, and this names no iteration")
    return state


def _is_model(path: str | Path) -> bool:
    try:
        read_binary(path, NetParameter)
    except SnapshotError:
        return False
    return True


def check_history(
    state: SolverState, path: str | Path, parameters: Parameters, history_count: int, solver_type: str
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
        found, wanted_shape = blob_shape(saved), entry.blob.shape
        legacy = (1,) * (len(found) - len(wanted_shape)) + wanted_shape  # before blobs had any number of axes
        if found != wanted_shape and (saved.HasField("shape") or found != legacy):
            raise SnapshotError(
                f"{path}: the history of parameter {entry.label} has shape {found}, the parameter {wanted_shape}: "
                "the state is of another net"
            )


def load_history(state: SolverState, parameters: Parameters, history: Sequence[Flat]) -> None:
    """Copy the histories of a state that :func:`check_history` has passed into the flat arrays ``history``."""
    entries = parameters.entries
    for index, saved in enumerate(state.history):
        entry, flat = entries[index % len(entries)], history[index // len(entries)]
        if not entry.is_statistic:
            flat[entry.start : entry.stop] = blob_to_array(saved).reshape(-1)


def find_learned_net(state: SolverState, path: str | Path) -> Path | None:
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
