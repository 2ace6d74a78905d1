"""Work that is done beside the training, one piece after the other."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable

from paratrain.errors import ParatrainError

__all__ = ["Background"]

logger = logging.getLogger(__name__)


class Background:
    """Runs one piece of work at a time in a thread. What it raises is logged at once, and raised by the next call of
    ``start``, ``check`` or ``wait``.

    The interpreter waits for the thread before it exits. Where an error has been raised by no call until then, the
    process says so and ends with exit code 1: a script may have done its last step when a snapshot fails.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work``, after what was begun before is done."""
        self.wait()
        self.follow(work)

    def follow(self, work: Callable[[], None]) -> None:
        """Let ``work`` be done when what was begun before is done; return at once. It is left out after an error."""
        arguments = (work, self._thread)
        self._thread = threading.Thread(target=self._run, args=arguments, name="paratrain-snapshot", daemon=False)
        self._thread.start()

    def check(self) -> None:
        """Raise what the work has raised, if it has; do not wait for it."""
        if self._error is not None or (self._thread is not None and not self._thread.is_alive()):
            self.wait()

    def wait(self) -> None:
        """Return when all work is done. Raises what it has raised."""
        self.finish()
        error, self._error = self._error, None
        if error is not None:
            _not_raised.discard(error)
            raise error

    def finish(self) -> None:
        """Return when all work is done. An error stays for another method to raise, or for the end of the process."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, work: Callable[[], None], before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        if self._error is not None:
            return
        try:
            work()
        except BaseException as error:
            logger.error("%s", _describe(error), exc_info=None if isinstance(error, ParatrainError) else error)
            _not_raised.add(error)
            self._error = error


_not_raised: set[BaseException] = set()


def _describe(error: BaseException) -> str:
    return str(error) if isinstance(error, ParatrainError) else f"{type(error).__name__}: {error}"


def _end(process: int) -> None:
    """At the end of the process, when all threads are done; a child that was forked has the errors, too, and is none of it."""
    if not _not_raised or os.getpid() != process:
        return
    for error in _not_raised:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"paratrain: a snapshot has failed: {_describe(error)}\n")
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(1)  # nothing else changes the exit code here


atexit.register(_end, os.getpid())
