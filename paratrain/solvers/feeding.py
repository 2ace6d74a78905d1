"""Whether the data keeps up with the training, and how much of it was bad."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from paratrain.net import Net
from paratrain.solvers.ranks import Ranks, gather

if TYPE_CHECKING:
    from paratrain.solvers.solver import Solver

__all__ = ["bad_record_count", "hint", "log_bad_records"]

logger = logging.getLogger(__name__)

_HINT_SHARE = 0.1
_HINT_AFTER_S = 1.0  # of training: less says nothing


def bad_record_count(nets: Iterable[Net]) -> int:
    """How often another record has taken the place of a bad one in the batches that these nets were given."""
    return sum(layer.bad_record_count for net in nets for layer in net.layers)


def hint(solver: Solver, share: float) -> None:
    """Say, once in a run, what helps where ``share`` of the time since the last display was spent waiting for data."""
    times = solver.times
    if share <= _HINT_SHARE or times.training_s < _HINT_AFTER_S or times.has_hinted:
        return
    times.has_hinted = True
    solver.info(
        "Waiting for data takes %.0f%% of the time. What may help: more threads that read ahead (--data-workers, now %d), "
        "an LMDB instead of single image files, images stored in the size that is used",
        100 * share,
        solver.net.context.data.worker_count,
    )


def log_bad_records(nets: Iterable[Net], ranks: Ranks) -> None:
    """At the end of a run let the root log how many records were bad, if any. Every rank calls it."""
    total = int(gather(ranks, [bad_record_count(nets)]).sum())
    if total and ranks.rank == 0:
        logger.warning("Bad records: %d times the next good record took the place of one that cannot be used", total)
