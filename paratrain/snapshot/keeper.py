"""The snapshots of one training run: written beside the training, and removed when they are not kept."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from paratrain.snapshot.background import Background
from paratrain.snapshot.copies import SnapshotCopy
from paratrain.snapshot.names import SnapshotNames, leftovers
from paratrain.snapshot.retention import Metric, check_free_space, remove_old, remove_snapshot
from paratrain.snapshot.training_state import BestScore, TrainingState, sum_file

__all__ = ["SnapshotKeeper"]

logger = logging.getLogger(__name__)


class SnapshotKeeper:
    """Writes snapshots named after ``prefix``, on the root.

    ``keep`` snapshots are kept when a new one is complete, all where it is None; and that of the best score by ``metric``,
    if one is given.
    """

    def __init__(self, prefix: str, *, hdf5: bool = False) -> None:
        self.keep: int | None = None
        self.metric: Metric | None = None
        self.best: BestScore | None = None
        self._prefix = prefix
        self._hdf5 = hdf5
        self._background = Background()
        self._last_iteration: int | None = None
        self._superseded: int | None = None

    def names(self, iteration: int) -> SnapshotNames:
        """The files of the snapshot of an iteration."""
        return SnapshotNames(self._prefix, iteration, self._hdf5)

    def begin(self, copy: SnapshotCopy, training: TrainingState) -> None:
        """Begin to write a snapshot, once the one before is done. ``training`` needs no sums yet.

        Raises SnapshotError where there is no room for it, and what writing the one before has raised.
        """
        self._background.wait()
        check_free_space(self._prefix, copy.size_bytes)
        names, training = self.names(copy.iteration), replace(training, best=self.best)
        keep, superseded = self.keep, self._superseded
        self._last_iteration, self._superseded = copy.iteration, None
        self._background.start(lambda: self._write(names, copy, training, keep, superseded))

    def check(self) -> None:
        """Raise what writing a snapshot has raised, if something has."""
        self._background.check()

    def wait(self) -> None:
        """Return when the snapshot that was begun is on the disk. Raises SnapshotError where it could not be written."""
        self._background.wait()

    def close(self) -> None:
        """As :meth:`wait`, but it raises nothing, since a run may end because of another error. One of writing was logged,
        and gives the process exit code 1.
        """
        self._background.finish()

    def score(self, iteration: int, tests: Sequence[Mapping[str, float | Sequence[float]]]) -> bool:
        """Take in the outputs of the test nets; return whether a snapshot is to be begun, as this is the best and has none.

        The first test net that has the metric counts. It does not wait for a snapshot that is being written.
        """
        metric = self.metric
        if metric is None:
            return False
        score = next((score for outputs in tests if (score := metric.value(outputs)) is not None), None)
        before = self.best if self.best is not None and self.best.metric == str(metric) else None
        if score is None or not metric.is_better(score, None if before is None else before.score):
            return False
        is_extra = self._last_iteration != iteration
        self.best = BestScore(str(metric), score, iteration, is_extra)
        if before is not None and before.is_extra and before.iteration != iteration:
            self._superseded = before.iteration
        logger.info("Iteration %d, best %s so far: %g", iteration, metric.name, score)
        if not is_extra:  # else when its snapshot is complete
            keep, superseded, self._superseded = self.keep, self._superseded, None
            self._background.follow(lambda: self._remove(iteration, keep, iteration, superseded))
        return is_extra

    def resume(self, training: TrainingState, path: Path) -> None:
        """Go on from the snapshot whose trainstate is ``path``."""
        self.best = training.best
        with contextlib.suppress(OSError):
            if path.samefile(self.names(training.iteration).training):
                self._last_iteration = training.iteration

    def _write(
        self,
        names: SnapshotNames,
        copy: SnapshotCopy,
        training: TrainingState,
        keep: int | None,
        superseded: int | None,
    ) -> None:
        for leftover in leftovers(self._prefix):
            leftover.unlink(missing_ok=True)
        # A snapshot of this name stays good where it is replaced by its equal, as a resumed run does.
        sums = {Path(name).name: sum_file(name) for name in copy.write_all(names)}
        replace(training, files=sums).write(names.training)
        self._remove(copy.iteration, keep, None if training.best is None else training.best.iteration, superseded)

    def _remove(self, newest: int, keep: int | None, best: int | None, superseded: int | None) -> None:
        """Remove what is not kept any more, now that the snapshot ``newest`` is complete."""
        if superseded is not None and superseded != best:
            remove_snapshot(self._prefix, superseded)
        if keep is not None:
            remove_old(self._prefix, newest, keep, best)
