"""Ranks and the messages between them: `communicator` is the contract, `local`, `threads` and `mpi` keep it.

`tree` is the exchange over a tree. Nothing here knows a Net, and mpi4py is imported only when there are ranks to join.
"""

from __future__ import annotations

import os
import sys

from paratrain.comm.communicator import Communicator
from paratrain.comm.environment import launcher_environment
from paratrain.comm.local import LocalCommunicator
from paratrain.comm.tree import TreeExchange

__all__ = ["Communicator", "LocalCommunicator", "TreeExchange", "create_communicator"]


def create_communicator() -> Communicator:
    """The ranks this process was started among: MPI's under mpirun or srun, else one rank without any MPI library.

    Under a launcher with more than one process all of them call this together. MissingDependencyError or
    CommunicationError (mpi4py or its library missing, or another MPI's launcher) say how to mend it.
    """
    launcher = launcher_environment(os.environ)
    if launcher is not None and launcher.size != 1:
        from paratrain.comm.mpi import connect_mpi

        return connect_mpi(launcher)
    if "mpi4py.MPI" in sys.modules:  # a launcher that is not known here, but the script knows its MPI
        from paratrain.comm.mpi import connect_mpi, world_is_running

        if world_is_running():
            return connect_mpi(None)
    return LocalCommunicator()
