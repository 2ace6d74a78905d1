"""Opening a snapshot, wherever it lies now: the state, the weights that belong to it, and the trainstate if there is one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from paratrain.errors import SnapshotError
from paratrain.snapshot.carried import read_carried
from paratrain.snapshot.names import CARRIED, training_name
from paratrain.snapshot.solverstate import SavedState, find_learned_net, read_state
from paratrain.snapshot.training_state import TrainingState, read_training_state

__all__ = ["OpenedSnapshot", "open_snapshot"]


Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OpenedSnapshot:
    """A snapshot whose files belong together."""

    path: Path
    """The solver state."""
    state: SavedState
    training: TrainingState | None
    """None where no trainstate is beside the state: it says nothing about the data."""
    training_path: Path

    def find_model(self) -> Path | None:
        """The weights; None where a state of Caffe's names none. Raises SnapshotError where they are not there."""
        if self.training is None:
            return find_learned_net(self.state, self.path)
        return next((self.training_path.with_name(name) for name in self.training.files if ".caffemodel" in name), None)

    def read_carried(self) -> dict[str, Array]:
        """What layers take over to the next batch; {} where the snapshot has nothing of it. Raises SnapshotError."""
        names = [] if self.training is None else [name for name in self.training.files if name.endswith(CARRIED)]
        return read_carried(self.training_path.with_name(names[0])) if names else {}


def open_snapshot(path: str | os.PathLike[str], *, with_sums: bool = True) -> OpenedSnapshot:
    """Read the snapshot of a solver state, or of a trainstate, and check that its files are whole and belong together.

    ``with_sums`` compares the checksums of the files, too, which reads them once more. Raises SnapshotError.
    """
    given = Path(path)
    beside = training_name(given)
    training = None
    if beside.exists() and (given.is_file() or given == beside):
        training = read_training_state(beside)
        names = [name for name in training.files if ".solverstate" in name]
        if given == beside:
            if not names:
                raise SnapshotError(f"{given}: names no solver state")
            given = beside.with_name(names[0])
        if given.name not in training.files:  # of another format, say, than the one that was written last
            training = None
    if training is None:
        return OpenedSnapshot(given, read_state(given), None, beside)
    try:
        training.check_files(beside, with_sums=with_sums)
    except SnapshotError:
        read_state(given)  # which says more of a file that is cut off
        raise
    state = read_state(given)
    if state.iteration != training.iteration:
        raise SnapshotError(f"{given}: is of iteration {state.iteration}, and {beside} of {training.iteration}")
    return OpenedSnapshot(given, state, training, beside)
