"""Work that is done beside the training, one piece at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Background"]


class Background:
    """Runs one piece of work at a time in a thread. What it raises is raised by the next call of any method.

    The interpreter waits for the thread before it exits.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work``, after what was begun before is done."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="paratrain-snapshot", daemon=False)
        self._thread.start()

    def check(self) -> None:
        """Raise what the work has raised, if it is done; return at once if it is not."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Return when the work is done. Raises what it has raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
