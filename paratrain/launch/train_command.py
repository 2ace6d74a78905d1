"""The `train` command of a job, as it is at the first start and as it is when it goes on from a snapshot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from paratrain.errors import SolverError
from paratrain.launch import options
from paratrain.launch.overrides import override
from paratrain.launch.restarting import SnapshotWatch
from paratrain.proto import NetParameter
from paratrain.solvers import read_solver
from paratrain.solvers.batches import divide_batches, plan_passes
from paratrain.solvers.nets import train_net_choice

__all__ = ["TrainCommand"]

# What says where to start, and what makes sense with it alone: a restart starts elsewhere.
_STARTS = ("-weights", "-snapshot", "--weights", "--snapshot", "--resume", "--rename")
_START_FLAGS = ("--allow-mismatch",)
_ITERATIONS = ("-iterations", "--iterations")


class TrainCommand:
    """Makes the command of each start. Reads the solver, to know its snapshots; raises ParatrainError where it is wrong."""

    def __init__(self, words: Sequence[str], arguments: argparse.Namespace, planned_count: int) -> None:
        path = arguments.file or arguments.solver
        if path is None or (arguments.file is not None and arguments.solver is not None):
            arguments.parser.error("give the solver prototxt, once: paratrain launch -n 2 train solver.prototxt")
        self._words, self._arguments, self._planned_count = list(words), arguments, planned_count
        self._solver = override(read_solver(path), arguments.set)
        options.set_state(self._solver.train_state, arguments)
        self._snapshots = SnapshotWatch(self._solver.snapshot_prefix)
        self._first_iteration: int | None = None

    def words(self, rank_count: int) -> list[str]:
        """The words after ``paratrain`` that start, or go on, on so many ranks."""
        words = list(self._words)
        found = self._snapshots.newest()
        if found is not None:
            state, iteration = found
            words = _without(words, _STARTS, _START_FLAGS)
            if self._arguments.iterations is not None:
                words = [*_without(words, _ITERATIONS, ()), f"-iterations={self._left(iteration)}"]
            words.append(f"--resume={state}")
        if (
            rank_count != self._planned_count
            and self._arguments.batch_mode == "per_rank"
            and not self._arguments.batch_ranks
        ):
            words.append(f"--batch-ranks={self._planned_count}")
        return words

    def note_begin(self, iteration: int | None) -> None:
        """Take in at which iteration the ranks began: what ``-iterations`` counts from."""
        if self._first_iteration is None:
            self._first_iteration = iteration

    def has_progress(self) -> bool:
        """Whether a newer good snapshot is there than at the last call."""
        return self._snapshots.has_progress()

    def is_done(self) -> bool:
        """Whether the newest snapshot is that of the last iteration that ``-iterations`` asks for."""
        found = self._snapshots.newest()
        return found is not None and self._arguments.iterations is not None and self._left(found[1]) <= 0

    def origin(self) -> str:
        """Where the next start goes on, in words."""
        found = self._snapshots.newest()
        if found is not None:
            return f"going on from {found[0]} (iteration {found[1]})"
        return "from where the run began, since it has written no good snapshot yet"

    def problem_with(self, rank_count: int) -> str | None:
        """Why so many ranks cannot keep the effective batch; None where they can."""
        try:
            net: NetParameter = train_net_choice(self._solver).parameter()
            if self._arguments.batch_mode == "global":
                divide_batches(net, rank_count)
            else:
                plan_passes(net, self._arguments.batch_ranks or self._planned_count, rank_count, self._solver.iter_size)
        except SolverError as error:
            return str(error)
        return None

    def _left(self, iteration: int) -> int:
        total: int = self._arguments.iterations
        return total - (iteration - (self._first_iteration or 0))


def _without(words: Sequence[str], names: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The words without the options of these names, with their values, and without these flags."""
    kept, skips = [], False
    for word in words:
        if skips:
            skips = False
        elif word in names:
            skips = True
        elif word not in flags and word.partition("=")[0] not in names:
            kept.append(word)
    return kept
