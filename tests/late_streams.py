"""A while in which work of the simulated GPU's streams waits: see tests/simulated_gpu/simulated/late.py."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

from tests.simulated_gpu_path import IS_REAL

__all__ = ["late_streams"]


@contextlib.contextmanager
def late_streams(seed: int = 0) -> Iterator[None]:
    """Work of streams waits until something demands it, in an order that the seed draws.

    At the end all of it runs, and what went wrong and nobody was told is raised. A real GPU is late by itself.
    """
    synchronize = importlib.import_module("cupy").cuda.runtime.deviceSynchronize
    late = None if IS_REAL else importlib.import_module("simulated.late")
    if late is None or late.is_on():  # in the whole process
        yield
        synchronize()
        return
    late.begin(seed)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            late.end()
        raise
    late.end()
