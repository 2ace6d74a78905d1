"""Which snapshots are good, which is the newest of them, and which are removed."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paratrain.errors import SnapshotError
from paratrain.snapshot.names import list_snapshots
from paratrain.snapshot.training_state import read_training_state

__all__ = ["Metric", "check_free_space", "find_newest", "remove_old", "remove_snapshot"]

logger = logging.getLogger(__name__)

_LOWER = ("loss", "error", "perplexity")
_HIGHER = ("acc", "top", "map", "iou", "precision", "recall", "f1", "auc", "score")


@dataclass(frozen=True)
class Metric:
    """An output of a test net by which snapshots are compared."""

    name: str
    higher_is_better: bool

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read ``accuracy``, ``loss``, ``max:NAME`` or ``min:NAME``. Raises SnapshotError where the direction is unknown."""
        direction, _, name = text.rpartition(":")
        if direction in ("max", "min") and name:
            return cls(name, direction == "max")
        lower = any(word in name.lower() for word in _LOWER)
        higher = any(word in name.lower() for word in _HIGHER)
        if direction or not name or lower == higher:
            raise SnapshotError(f"'{text}': say whether high or low scores are better: max:{name} or min:{name}")
        return cls(name, higher)

    def value(self, outputs: Mapping[str, float | Sequence[float]]) -> float | None:
        """The score among the outputs of a test, the mean where it has several values; None where it is not there."""
        found = outputs.get(self.name)
        if found is None or isinstance(found, (int, float)):
            return found
        return math.fsum(found) / len(found)

    def is_better(self, score: float, than: float | None) -> bool:
        """Whether ``score`` is better than another; one that is not a number never is."""
        if math.isnan(score):
            return False
        return than is None or (score > than if self.higher_is_better else score < than)

    def __str__(self) -> str:
        return f"{'max' if self.higher_is_better else 'min'}:{self.name}"


def find_newest(prefix: str) -> Path | None:
    """Return the solver state of the newest good snapshot of ``prefix``; None where there is none.

    Those that are newer and not good are named in a warning.
    """
    for files in list_snapshots(prefix).values():
        training = next((file for file in files if file.name.endswith(".trainstate")), None)
        if training is None:
            logger.warning(
                "Passing over %s: no .trainstate is beside it, so that it was cut short, or was not written by paratrain",
                files[0],
            )
            continue
        try:
            state = read_training_state(training)
            state.check_files(training)
            names = [name for name in state.files if ".solverstate" in name]
            if names:
                return training.parent / names[0]
            logger.warning("Passing over %s: it names no solver state", training)
        except SnapshotError as error:
            logger.warning("Passing over a bad snapshot: %s", error)
    return None


def remove_old(prefix: str, newest: int, keep: int, best: int | None) -> None:
    """Remove the snapshots of ``prefix`` up to iteration ``newest``, but for the last ``keep`` of them and the best.

    One without a trainstate, which was cut short, is none of the ``keep``; it goes when it is older than all of them.
    """
    found = {iteration: files for iteration, files in list_snapshots(prefix).items() if iteration <= newest}
    whole = [iteration for iteration, files in found.items() if any(file.suffix == ".trainstate" for file in files)]
    if len(whole) < keep:
        return
    for iteration in found:
        if iteration < whole[keep - 1] and iteration != best:
            remove_snapshot(prefix, iteration)


def remove_snapshot(prefix: str, iteration: int) -> None:
    """Remove a snapshot, first the file that makes it a good one. What cannot be removed is left, with a warning."""
    files = list_snapshots(prefix).get(iteration, [])
    for file in sorted(files, key=lambda file: not file.name.endswith(".trainstate")):
        try:
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
        except OSError as error:
            logger.warning("%s: an old snapshot cannot be removed (%s)", file, error.strerror)


def check_free_space(prefix: str, needed_bytes: int) -> None:
    """Raise SnapshotError unless ``needed_bytes`` fit into the folder of the snapshots."""
    folder = Path(f"{prefix}_iter_0").parent
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError:
        return  # writing will say what is wrong
    if free_bytes < needed_bytes:
        raise SnapshotError(
            f"{folder}: a snapshot needs {needed_bytes:,} bytes, and {free_bytes:,} are free; make room "
            "(--keep N removes older snapshots), or change snapshot_prefix"
        )
