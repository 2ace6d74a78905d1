"""The log: Caffe's lines, in glog's classic form, through Python's ``logging``.

::

    I1121 21:06:22.735240 25004 solver.py:239] Iteration 20 (44.6429 iter/s, 0.448s/20 iters), loss = 0.905912

Every module of paratrain logs to ``logging.getLogger(__name__)``. Used from Python, paratrain stays silent but for
warnings, which Python's logging prints to stderr, until the program configures logging or calls :func:`init_log`; the
command line calls it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["GlogFormatter", "ProgressBar", "init_log", "log"]

_LOGGER = logging.getLogger("paratrain")
_SEVERITIES = ((logging.CRITICAL, "F"), (logging.ERROR, "E"), (logging.WARNING, "W"))


class GlogFormatter(logging.Formatter):
    """One line of glog: severity, month, day, local time with microseconds, thread id, file:line.

    Newer versions of glog print the year as well; Caffe's log parsers do not read that form.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the prefix and the message, which may hold several lines; a traceback follows where there is one."""
        severity = next((letter for level, letter in _SEVERITIES if record.levelno >= level), "I")
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        microseconds = int(record.created % 1 * 1e6)
        thread = threading.get_native_id()
        text = (
            f"{severity}{stamp}.{microseconds:06d} {thread:5d} {record.filename}:{record.lineno}] {record.getMessage()}"
        )
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 takes no [TextIO] here
    """Writes to stderr, whatever that is at the moment, and above a progress bar while there is one."""

    bar: tqdm[Any] | None = None

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if self.bar is None:
            super().emit(record)
            return
        try:
            self.bar.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on without a word where nobody reads the log any more; training is worth more than its log."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def flush(self) -> None:
        with contextlib.suppress(ValueError):  # stderr is closed
            super().flush()


_handler: _Handler | None = None


def init_log(level: int = logging.INFO, *, quiet: bool = False) -> None:
    """Send the log to stderr in glog's form, from ``level`` on; a second call changes the level.

    With ``quiet`` stderr shows warnings and errors only, which leaves the rest to other handlers: a log file.
    """
    global _handler
    if _handler is None:
        _handler = _Handler()
        _handler.setFormatter(GlogFormatter())
        _LOGGER.addHandler(_handler)
        _LOGGER.propagate = False
    _handler.setLevel(logging.WARNING if quiet else logging.NOTSET)
    _LOGGER.setLevel(level)


def log(message: str) -> None:
    """Write one line to the log, under the file and line of the caller (pycaffe's ``caffe.log``)."""
    _LOGGER.info("%s", message, stacklevel=2)


class _CallableModule(types.ModuleType):
    """After ``import paratrain as caffe``, ``caffe.log`` is this module, and scripts call it: ``caffe.log("...")``."""

    def __call__(self, message: str) -> None:
        """As :func:`log`."""
        _LOGGER.info("%s", message, stacklevel=2)


sys.modules[__name__].__class__ = _CallableModule


class ProgressBar:
    """A bar of iterations on stderr while that is a terminal; otherwise nothing at all. A context manager.

    Log lines are printed above the bar. ``total`` is None where it is not known; ``unit`` says what is counted.
    """

    def __init__(self, total: int | None, start: int = 0, *, enabled: bool = True, unit: str = "it") -> None:
        self._bar: tqdm[Any] | None = None
        if enabled and sys.stderr.isatty():
            from tqdm import tqdm  # only where there is a bar to draw

            self._bar = tqdm(total=total, initial=start, unit=unit, dynamic_ncols=True, leave=False, file=sys.stderr)

    def advance(self, loss: float | None = None) -> None:
        """Count one iteration; show ``loss`` where it is given."""
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self._bar.update()

    def __enter__(self) -> ProgressBar:
        if _handler is not None:
            _handler.bar = self._bar
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if _handler is not None:
            _handler.bar = None
        if self._bar is not None:
            self._bar.close()
