"""Which ranks a script is one of, and what it has said of them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import multiprocessing
import os
import shutil
from dataclasses import dataclass

from paratrain.activity import Activity
from paratrain.comm import Communicator
from paratrain.comm.environment import launcher_environment
from paratrain.comm.processes import join_processes, make_meeting_place
from paratrain.comm.watch import watch_ranks
from paratrain.errors import CommunicationError, SolverError
from paratrain.launch.abort import connect, install_excepthook
from paratrain.launch.cores import take_cores
from paratrain.watching.settings import WatchSettings

__all__ = [
    "activity",
    "choices",
    "new_meeting_place",
    "root_solver",
    "set_multiprocess",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "world",
]

_LOGGER = logging.getLogger("paratrain")
_MEETING_PLACE = "PARATRAIN_MEETING_PLACE"
"""The environment variable that tells processes which a script starts where they meet."""


@dataclass
class Choices:
    """What the ``set_`` functions have chosen for nets and solvers made from now on."""

    seed: int | None = None
    is_gpu_mode: bool | None = None
    device: int | None = None
    solver_count: int | None = None
    solver_rank: int | None = None
    is_multiprocess: bool = False


choices = Choices()


@functools.cache
def world() -> Communicator:
    """The ranks this script was started with, or has started; looked for once, when the first solver is made or asked about."""
    count = choices.solver_count
    if _launched_size() == 1 and count is not None and count > 1:
        communicator: Communicator = _join_own_processes(count, choices.solver_rank)
    else:
        communicator = connect()
        _check_choices(communicator)
        if communicator.size > 1:
            install_excepthook(communicator)
    take_cores(communicator, pin=False)  # where a script's other threads run is its own affair
    return communicator


@functools.cache
def activity() -> Activity:
    """Where this rank says what it is doing. From its first solver on it is watched, but never ended for a long wait: a
    script may have reasons to let the others wait.
    """
    made = Activity()
    if choices.solver_count is None or _launched_size() > 1:
        watch_ranks(world(), made, WatchSettings(abort_s=0))
    return made


def solver_count() -> int:
    """The number of ranks that train together."""
    return world().size if choices.solver_count is None else choices.solver_count


def solver_rank() -> int:
    """The number of this rank, from 0."""
    return world().rank if choices.solver_rank is None else choices.solver_rank


def root_solver() -> bool:
    """Whether this rank is the root, which updates, logs and snapshots."""
    return solver_rank() == 0


def set_solver_count(count: int) -> None:
    """Say how many processes, started by this script, train together. Under mpirun, where this is known, it must be the same.

    Raises SolverError for another number, and after the first solver has been made.
    """
    if count < 1:
        raise SolverError(f"set_solver_count({count}): at least one process trains")
    _check_early(f"set_solver_count({count})", count == _made_size())
    choices.solver_count = count
    _check_launch(f"set_solver_count({count})", count, _launched_size())


def set_solver_rank(rank: int) -> None:
    """Say which of the processes this is, from 0. Under mpirun, where this is known, it must be the same.

    Raises SolverError for another number, and after the first solver has been made.
    """
    if rank < 0:
        raise SolverError(f"set_solver_rank({rank}): ranks are counted from 0")
    _check_early(f"set_solver_rank({rank})", _made_size() is not None and rank == world().rank)
    choices.solver_rank = rank
    if rank > 0 and 0 < _LOGGER.level < logging.WARNING:  # the log was switched on before the processes were started
        _LOGGER.setLevel(logging.WARNING)
    launcher = launcher_environment(os.environ)
    if launcher is not None and _launched_size() > 1:
        _check_launch(f"set_solver_rank({rank})", rank, launcher.rank)


def set_multiprocess(is_multiprocess: bool) -> None:
    """Say that the solvers that train together are processes, not threads: as they always are here."""
    choices.is_multiprocess = bool(is_multiprocess)


def new_meeting_place() -> str:
    """Make the place where the processes meet that this one is about to start; they inherit its name.

    Under mpirun, where the ranks know each other, only a name.
    """
    if _launched_size() > 1:
        return "mpi"
    folder, maker = make_meeting_place(), os.getpid()

    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    os.environ[_MEETING_PLACE] = folder
    return folder


def meeting_place() -> str | None:
    """The place where this process meets the others: what :func:`new_meeting_place` returned; None where there is none."""
    return "mpi" if _launched_size() > 1 else os.environ.get(_MEETING_PLACE)


def _join_own_processes(count: int, rank: int | None) -> Communicator:
    place = f"set_solver_count({count})"
    if rank is None or rank >= count:
        given = "none is given" if rank is None else f"it is {rank}"
        raise SolverError(
            f"{place}: set_solver_rank(...) must give this process a number from 0 to {count - 1}; {given}"
        )
    folder = meeting_place()
    if folder is None:
        raise SolverError(
            f"{place}: this process does not know where the others are. Call uid = NCCL.new_uid() in the process that starts "
            "them, before it does; or leave processes and set_solver_ functions out, and start the script as "
            f"mpirun -n {count} python SCRIPT"
        )
    communicator = join_processes(folder, rank, count)
    with contextlib.suppress(CommunicationError):  # a process that ends early is found missing when it is waited for
        communicator.barrier()
    return communicator


def _launched_size() -> int:
    """How many ranks a launcher has started; 1 where there is none, or it does not say."""
    launcher = launcher_environment(os.environ)
    return 1 if launcher is None or launcher.size is None else launcher.size


def _made_size() -> int | None:
    return world().size if world.cache_info().currsize else None


def _check_early(call: str, is_same: bool) -> None:
    if _made_size() is not None and not is_same:
        raise SolverError(
            f"{call}: call it before the first solver is made, and before solver_count() and solver_rank() are asked: by "
            f"then this process is rank {world().rank} of {world().size}"
        )


def _check_launch(call: str, given: int, known: int) -> None:
    if _launched_size() > 1 and (given != known or multiprocessing.parent_process() is not None):
        found = f"the launcher says {known}" if given != known else "the launcher knows another process as this rank"
        raise SolverError(
            f"{call}: {found}. Under mpirun every rank is a process already: run a script that starts its own processes "
            "without mpirun, or let it start none and leave the set_solver_ functions out"
        )


def _check_choices(communicator: Communicator) -> None:
    for call, given, known in (
        ("set_solver_count", choices.solver_count, communicator.size),
        ("set_solver_rank", choices.solver_rank, communicator.rank),
    ):
        if given is not None and given != known:
            raise SolverError(f"{call}({given}): this process is rank {communicator.rank} of {communicator.size}")
