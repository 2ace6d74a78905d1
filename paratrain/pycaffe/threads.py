"""How many threads the nets of a script compute with, where no solver has shared out the cores yet."""

from __future__ import annotations

import multiprocessing
import os

from paratrain.comm.environment import launcher_environment
from paratrain.comm.local import LocalCommunicator
from paratrain.launch.cores import take_cores
from paratrain.pycaffe.ranks import choices
from paratrain.threads import wanted_thread_count

__all__ = ["take_threads"]


def take_threads() -> None:
    """Have nets that are made from now on compute with all cores that this process may use, or as many threads as
    OMP_NUM_THREADS says.

    Nothing happens where that is decided already, nor for one of several ranks or processes of a script, which compute with
    one thread until a solver joins them and shares out the cores.
    """
    if wanted_thread_count() is not None or launcher_environment(os.environ) is not None:
        return
    if multiprocessing.parent_process() is None and choices.solver_count in (None, 1):
        take_cores(LocalCommunicator(), pin=False)
