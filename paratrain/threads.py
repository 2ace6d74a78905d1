"""How many threads the libraries under the backends use, and how these wait: OpenMP's under oneDNN, the BLAS's under NumPy.

The pools are made when a library is loaded, before anybody could know how many ranks share the machine. So NumPy is
loaded with one thread (`load_numpy`), and `set_thread_count` raises that later: pools grow. Variables that the user has
set win: OPENBLAS_NUM_THREADS and the like for the BLAS, see `paratrain.launch.cores` for OMP_NUM_THREADS.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, MutableMapping

__all__ = ["load_numpy", "openmp_settings", "set_thread_count", "wanted_thread_count"]

_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
_FOR_ALL = "OMP_NUM_THREADS"
# OpenBLAS's threads spin for 2^26 ticks, 20 ms, after each piece of work unless told otherwise: these for about 5 us.
_BRIEF = {"OPENBLAS_THREAD_TIMEOUT": "14"}

# How long OpenMP's threads spin for more work: with cores of their own long enough for what lies between two primitives
# of a step, about 0.3 ms; where nobody knows who else computes, briefly.
_LONG, _SHORT, _NOT = 30_000, 10_000, 0

_wanted: int | None = None
_spins = _SHORT


def load_numpy(environ: MutableMapping[str, str] = os.environ) -> None:
    """Import NumPy with a BLAS of one thread, unless `environ` says how many, or NumPy is there already.

    The environment is left as it was. Threads of the BLAS that wait for work give up their core at once.
    """
    if "numpy" in sys.modules:
        return
    settings = dict(_BRIEF)
    if not any(name in environ for name in (*_BLAS_VARIABLES, _FOR_ALL)):
        settings |= dict.fromkeys(_BLAS_VARIABLES, "1")
    added = {name: value for name, value in settings.items() if name not in environ}
    environ.update(added)
    try:
        importlib.import_module("numpy")
    finally:
        for name in added:
            del environ[name]


def set_thread_count(count: int, *, has_room: bool = False) -> None:
    """Have the BLAS under NumPy use `count` threads from now on, and backends that are created from now on.

    With `has_room` each has a core of its own and may spin for a moment while it waits. Threads of the BLAS stay as the
    user's variables say where these name the library.
    """
    global _wanted, _spins
    _wanted, _spins = count, _LONG if has_room else _NOT
    if not any(name in os.environ for name in _BLAS_VARIABLES):
        from threadpoolctl import threadpool_limits

        threadpool_limits(count, user_api="blas")


def wanted_thread_count() -> int | None:
    """What `set_thread_count` was told last; None for nothing yet."""
    return _wanted


def openmp_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables to set while an OpenMP runtime is loaded, which reads them then: those that `environ` leaves open.

    Threads that spin for long while they wait take the cores from other ranks, and those that sleep at once are late for
    the next piece of work.
    """
    settings = {"OMP_NUM_THREADS": "1", "KMP_WARNINGS": "off"}
    if "OMP_WAIT_POLICY" not in environ:
        spinning = {"GOMP_SPINCOUNT": str(_spins), "KMP_BLOCKTIME": "1"}  # GNU's runtime: turns, Intel's: milliseconds
        settings |= spinning if _spins else {"OMP_WAIT_POLICY": "passive"}
    return {name: value for name, value in settings.items() if name not in environ}
