"""How ranks end when one of them cannot go on: once, together, and saying which one and why.

A command or script goes through three times: `connect` finds the ranks; `agree` closes the set-up, in which usually all
ranks find the same mistake, which is then reported once; `guard` (or `install_excepthook` in a script) covers the
rest, in which one rank may fail while the others wait for it, so that it has to end them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from paratrain.comm import create_communicator
from paratrain.comm.communicator import Communicator
from paratrain.comm.environment import LauncherEnvironment, launcher_environment
from paratrain.errors import CommunicationError, OtherRankFailedError, ParatrainError
from paratrain.watching.guard import StartGuard

T = TypeVar("T")

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT
# What every rank finds is reported by rank 0: the others wait this long for it to end them before they speak.
_DEFER_S = 1.0
# A rank that lost touch with another waits longer: the other one knows why.
_DEFER_CONSEQUENCE_S = 1.0
# Time for the launcher to forward what was written before it is told to end everything.
_FORWARD_S = 0.2
# Before the ranks know each other: time for rank 0 to start and to report.
_DEFER_START_S = 3.0


def connect(guard: StartGuard | None = None) -> Communicator:
    """`create_communicator`, except that an error ends the process: reported once, exit code 1, no traceback.

    A ``guard`` that is given goes on after that, until ranks are watched.
    """
    used = start_guard() if guard is None else guard
    try:
        communicator = create_communicator()
    except ParatrainError as error:
        _end_unconnected(error, launcher_environment(os.environ))
    used.connected()
    if guard is None:
        used.close()
    return communicator


def start_guard() -> StartGuard:
    """Have somebody look whether all ranks come, from before they know each other."""
    launcher = launcher_environment(os.environ)
    return StartGuard(None, None) if launcher is None else StartGuard(launcher.local_rank, launcher.local_size)


def agree(communicator: Communicator, error: BaseException | None) -> None:
    """At the end of the set-up every rank tells its error, or None. If there is one, all leave with exit code 1.

    Each different message is written once, by the lowest rank that has it, with the numbers of its ranks unless it is
    all of them. A ParatrainError is its message alone, anything else comes with its traceback. All ranks call this.
    """
    own = None if error is None else _text(error)
    found = communicator.allgather_objects(own)
    if not any(text is not None for text in found):
        return
    if own is not None and found.index(own) == communicator.rank:
        ranks = [rank for rank, text in enumerate(found) if text == own]
        everywhere = len(ranks) == communicator.size
        _write(f"paratrain: {own}" if everywhere else f"paratrain: {_ranks(ranks, communicator.size)}: {own}")
    communicator.barrier()
    communicator.close()
    raise SystemExit(EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_FAILURE)


def agreed(communicator: Communicator, make: Callable[[], T]) -> T:
    """Return what ``make`` does, once it has worked on every rank; otherwise end all ranks as `agree` does."""
    made: T | None = None
    error: BaseException | None = None
    try:
        made = make()
    except OSError as found:
        parts = (found.filename, found.strerror or found)
        error = ParatrainError(": ".join(str(part) for part in parts if part is not None))
    except OtherRankFailedError:
        pass  # that rank says why
    except (Exception, KeyboardInterrupt, SystemExit) as found:  # whoever calls sys.exit here would let the others wait
        error = found
    agree(communicator, error)
    assert made is not None, "agree has ended this process"
    return made


@contextlib.contextmanager
def guard(communicator: Communicator) -> Iterator[None]:
    """Whatever leaves the block by an exception ends all ranks with a non-zero exit code.

    sys.exit with a non-zero code inside ends all ranks with that code; sys.exit(0) is left alone.
    """
    try:
        yield
    except SystemExit as leaving:
        code = _exit_code(leaving.code)
        if code == 0 or communicator.size == 1:
            raise
        if isinstance(leaving.code, str):
            _write(leaving.code)
        _abort(communicator, code)
    except BaseException as error:
        fail(communicator, error)


def fail(communicator: Communicator, error: BaseException) -> NoReturn:
    """Report `error` with this rank's number and host, then end all ranks.

    A ParatrainError is its message alone, anything else comes with its traceback. If all ranks fail alike at about
    the same time, rank 0 reports and ends the others before they do.
    """
    expected = isinstance(error, (ParatrainError, KeyboardInterrupt))
    if expected and communicator.rank > 0:
        time.sleep(_DEFER_S)
    if isinstance(error, CommunicationError) and communicator.size > 1:
        time.sleep(_DEFER_CONSEQUENCE_S)
    _write(report(communicator, error))
    _abort(communicator, EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_FAILURE)


def report(communicator: Communicator, error: BaseException) -> str:
    """The text for an error on this rank: "paratrain: rank 2 of 4 on HOST, at iteration 120, data of 'mnist': ...".

    Where it was is told of ranks that are watched.
    """
    if communicator.size == 1:
        return f"paratrain: {_text(error)}"
    place = f"rank {communicator.rank} of {communicator.size} on {socket.gethostname()}"
    if communicator.watch is not None:
        place += f", at {communicator.watch.activity}"
    return f"paratrain: {place}: {_text(error)}"


def install_excepthook(communicator: Communicator) -> None:
    """For scripts under mpirun: an uncaught exception, in any thread, or sys.exit(non-zero) ends all ranks.

    Does nothing for one rank, or if it was done before. Without it, the other ranks would wait for ever for one whose
    thread has died. `raise SystemExit(n)` without sys.exit cannot be seen; write sys.exit(n).
    """
    if communicator.size == 1 or hasattr(sys.excepthook, "paratrain_process"):
        return
    process = os.getpid()  # a forked child inherits the hooks, and must not end the ranks
    previous_hook, previous_thread_hook, previous_exit = sys.excepthook, threading.excepthook, sys.exit
    codes = [0]

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if os.getpid() != process:
            previous_hook(kind, error, trace)
            return
        fail(communicator, error)

    def thread_hook(arguments: threading.ExceptHookArgs) -> None:
        if os.getpid() != process or arguments.exc_value is None:
            previous_thread_hook(arguments)
        elif not isinstance(arguments.exc_value, SystemExit):  # which ends its thread alone, as in Python
            fail(communicator, arguments.exc_value)

    def leave(status: Any = None, /) -> NoReturn:
        if os.getpid() == process and threading.current_thread() is threading.main_thread():
            codes[0] = _exit_code(status)
        previous_exit(status)

    def at_exit() -> None:
        if os.getpid() == process and codes[0] != 0:
            _abort(communicator, codes[0])

    hook.paratrain_process = process  # type: ignore[attr-defined]
    sys.excepthook = hook
    threading.excepthook = thread_hook
    sys.exit = _as_exit(leave)
    atexit.register(at_exit)


def _as_exit(function: Callable[..., NoReturn]) -> Any:
    """The function under the name and with the help of sys.exit."""
    function.__name__, function.__doc__ = sys.exit.__name__, sys.exit.__doc__
    return function


def _end_unconnected(error: ParatrainError, launcher: LauncherEnvironment | None) -> NoReturn:
    """End a process that could not be joined to the others; it cannot reach them.

    An MPI that could not be loaded may be missing on one node only: the first rank of each node speaks. Everything else
    is seen by every process: rank 0 speaks, or rank 1 where the launcher does not say the count of ranks, so that rank 0
    cannot know.
    """
    if launcher is None:
        _write(f"paratrain: {error}")
        raise SystemExit(EXIT_FAILURE)
    by_node = "mpi4py.MPI" not in sys.modules and launcher.local_rank is not None
    speaker = 1 if launcher.size is None else 0
    if (launcher.local_rank == 0) if by_node else (launcher.rank == speaker):
        where = f" (rank {launcher.rank} on {socket.gethostname()})" if by_node else ""
        _write(f"paratrain: {error}{where}")
    else:
        time.sleep(_DEFER_START_S)
    if by_node and launcher.local_size != launcher.size:
        # Ranks of other nodes may wait for this one inside MPI_Init, and a launcher that has heard nothing of MPI yet
        # takes an exit for a normal end, whatever its code; a signal it does not.
        time.sleep(_FORWARD_S)
        os.kill(os.getpid(), signal.SIGTERM)
    raise SystemExit(EXIT_FAILURE)


def _abort(communicator: Communicator, code: int) -> NoReturn:
    if communicator.size > 1:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        time.sleep(_FORWARD_S)
    communicator.abort(code)


def _text(error: BaseException) -> str:
    if isinstance(error, ParatrainError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    return f"{type(error).__name__}: {error}\n{trace}"


def _ranks(ranks: list[int], size: int) -> str:
    numbers = ", ".join(str(rank) for rank in ranks)
    return f"rank {numbers} of {size} on {socket.gethostname()}" if len(ranks) == 1 else f"ranks {numbers} of {size}"


def _exit_code(status: object) -> int:
    """The exit code that Python makes of sys.exit's argument."""
    if status is None:
        return 0
    return status & 0xFF if isinstance(status, int) else 1


def _write(text: str) -> None:
    """In one piece, so that the texts of several ranks do not mix; a closed terminal is no further error."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
