"""The file of ours beside Caffe's two: what they leave out, and resuming bit for bit needs. JSON, written last.

Caffe's files hold the parameters and the history. Everything else that the next step depends on is a few numbers: the
random numbers follow from the seed and the iteration, the order of the records from the seed and the position of each
data layer. All ranks are at the same batch of their share, so one number stands for all of them. Only what layers take
over from one batch to the next is more, and has a file of its own (see paratrain.snapshot.carried).

A snapshot is good where this file is there and the checksums in it are those of the others.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from paratrain.errors import SnapshotError
from paratrain.proto import write_atomically

__all__ = ["BestScore", "DataPosition", "FileSum", "TrainingState", "read_training_state", "sum_file"]

_FORMAT = "paratrain.trainstate"
VERSION = 1


@dataclass(frozen=True)
class FileSum:
    """What a file must hold: its size and the SHA-256 of its bytes."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class DataPosition:
    """Where a data layer of a net stands."""

    layer: str
    next_batch: int
    """The number of the batch that each rank reads next."""
    batch_size: int
    """Records in a batch of one rank."""
    epoch: int | None = None
    """How many times all records have been read; None where the layer does not know."""
    order: str | None = None
    """How they are shuffled, as the prototxt would say it; None where the layer has no say in it."""


@dataclass(frozen=True)
class BestScore:
    """The best test score so far, and the iteration it was reached at."""

    metric: str
    score: float
    iteration: int
    is_extra: bool = False
    """Its snapshot was written only because it is the best, not since one was due."""


@dataclass(frozen=True)
class TrainingState:
    """Where a training run stands."""

    iteration: int
    seed: int
    ranks: int
    iter_size: int
    data: list[DataPosition]
    """The data layers of the net that is trained."""
    tests: list[int] = field(default_factory=list)
    """How many batches each test net has been scored on, by all ranks together."""
    policy: dict[str, Any] = field(default_factory=dict)
    """What the policies of the solver remember."""
    best: BestScore | None = None
    solver_type: str = ""
    files: dict[str, FileSum] = field(default_factory=dict)
    """The other files of the snapshot, which lie beside this, by name."""

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all. Raises SnapshotError."""
        contents = {"format": _FORMAT, "version": VERSION, **asdict(self)}
        write_atomically(path, (json.dumps(contents, indent=1) + "\n").encode())

    def check_type(self, path: str | os.PathLike[str], solver_type: str) -> None:
        """Raise SnapshotError where the trainstate ``path`` is of another type of solver."""
        if self.solver_type not in ("", solver_type):
            raise SnapshotError(
                f"{path}: was written by a solver of type {self.solver_type}; this one is {solver_type}, whose history means "
                "something else. Set the type back, or start from the weights alone with -weights"
            )

    def check_files(self, path: str | os.PathLike[str], *, with_sums: bool = True) -> None:
        """Raise SnapshotError where a file is missing or another than was written with the trainstate ``path``."""
        for name, expected in self.files.items():
            file = Path(path).parent / name
            try:
                size_bytes = file.stat().st_size
            except OSError:
                raise SnapshotError(f"{file}: not there, though {path} belongs to it") from None
            if size_bytes != expected.size_bytes:
                raise SnapshotError(
                    f"{file}: holds {size_bytes:,} bytes; it was written with {expected.size_bytes:,} (says {path}). "
                    f"{_REMEDY}"
                )
            if with_sums and sum_file(file) != expected:
                raise SnapshotError(
                    f"{file}: is not what was written at iteration {self.iteration}: its checksum is not that of {path}. "
                    f"{_REMEDY}"
                )


_REMEDY = (
    "Copy it again, or go back to an earlier snapshot; without the trainstate beside it the file would be taken as it is, "
    "and the data where it stands"
)


def read_training_state(path: str | os.PathLike[str]) -> TrainingState:
    """Read a trainstate. Raises SnapshotError for a file that is missing, damaged, or of a later version."""
    try:
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SnapshotError(f"{path}: no such file (looked up from {Path.cwd()})") from None
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise SnapshotError(f"{path}: is damaged, or not a trainstate ({error})") from None
    if not isinstance(contents, dict) or contents.pop("format", None) != _FORMAT:
        raise SnapshotError(f"{path}: is not a trainstate: it does not name the format '{_FORMAT}'")
    version = contents.pop("version", None)
    if version != VERSION:
        raise SnapshotError(f"{path}: has version {version}; this paratrain reads version {VERSION}")
    try:
        contents["data"] = [DataPosition(**position) for position in contents["data"]]
        contents["files"] = {name: FileSum(**given) for name, given in contents["files"].items()}
        contents["best"] = None if contents["best"] is None else BestScore(**contents["best"])
        state = TrainingState(**contents)
    except (KeyError, TypeError, AttributeError) as error:
        raise SnapshotError(f"{path}: is damaged: {error}") from None
    numbers: list[object] = [state.iteration, state.seed, state.ranks, state.iter_size, *state.tests]
    for position in state.data:
        numbers += [position.next_batch, position.batch_size]
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or 0 in numbers[2:4]:
        raise SnapshotError(f"{path}: is damaged: it holds numbers that cannot be")
    if not isinstance(contents.get("solver_type", ""), str) or not isinstance(contents.get("policy", {}), dict):
        raise SnapshotError(f"{path}: is damaged: solver_type is a name, and policy a table")
    if any(Path(name).name != name for name in state.files):
        raise SnapshotError(f"{path}: is damaged: its files lie beside it, and it names {', '.join(state.files)}")
    return state


def sum_file(path: str | os.PathLike[str]) -> FileSum:
    """Return size and SHA-256 of a file. Raises SnapshotError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
            return FileSum(stream.tell(), digest.hexdigest())
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read ({error.strerror})") from None
