"""How the ranks of a run let go of each other: together at its end, at once where one of them fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from paratrain.data_parallel.driver import DataParallel
from paratrain.solvers import Solver

__all__ = ["ending_exchange"]


@contextlib.contextmanager
def ending_exchange(solver: Solver) -> Iterator[None]:
    """At the end of the block, which all ranks leave in the same step, close what the exchange holds of other ranks; where an
    exception leaves it, on this rank or on all, abort the exchange, so that no other rank's GPU waits for this one.
    """
    driver = solver.shares if isinstance(solver.shares, DataParallel) else None
    try:
        yield
    except BaseException:
        if driver is not None:
            driver.abort()
        raise
    if driver is not None:
        driver.close()
