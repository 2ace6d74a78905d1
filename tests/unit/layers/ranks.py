"""Layers of several ranks that run together, each in its thread, and sum over ranks as a run does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.gradient_check import LayerRun

__all__ = ["together"]


def together(runs: Sequence[LayerRun], work: Callable[[LayerRun], Any]) -> list[Any]:
    """Do the work of all ranks, each in its thread, with a sum over ranks that adds up what all of them hand in."""
    barrier = threading.Barrier(len(runs), timeout=30)
    handed: list[npt.NDArray[Any]] = [np.zeros(0)] * len(runs)
    results: list[Any] = [None] * len(runs)

    def rank(index: int) -> None:
        def sum_over_ranks(array: npt.NDArray[Any]) -> None:
            handed[index] = array.copy()
            barrier.wait()
            total = np.sum(handed, axis=0)
            barrier.wait()
            array[...] = total

        runs[index].layer.context.sum_over_ranks = sum_over_ranks
        results[index] = work(runs[index])

    threads = [threading.Thread(target=rank, args=(index,)) for index in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
