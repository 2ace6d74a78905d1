"""Signals while training: what SIGINT, SIGHUP, SIGTERM, SIGUSR1 and SIGUSR2 ask of the solver.

They are noted when they come and done after the iteration, or between batches of a test, by all ranks together. A second
SIGINT does not wait.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
import types
from typing import Any

from paratrain.solvers import Action

__all__ = ["EFFECTS", "SignalWatch"]

logger = logging.getLogger(__name__)

EFFECTS = {"stop": Action.STOP, "snapshot": Action.SNAPSHOT, "none": Action.NONE}
"""By the names of Caffe's -sigint_effect and -sighup_effect."""

# Some programs (timeout, a terminal and a launcher together) send one signal twice.
_SAME_SIGNAL_S = 0.5


class SignalWatch:
    """While it is entered, SIGINT and SIGHUP have the effects given, SIGTERM and SIGUSR1 are SNAPSHOT and STOP, and SIGUSR2 is
    SNAPSHOT: launchers pass the last two on to the ranks as they are, where others may end the ranks (Open MPI).

    Calling it returns what has been asked since the last call: it is a solver's ``action_function``. Once a stop has been
    asked for, a further SIGINT raises KeyboardInterrupt. In another thread than the main one, which gets no signals, nothing
    is changed.
    """

    def __init__(self, sigint: Action = Action.STOP, sighup: Action = Action.SNAPSHOT) -> None:
        self._effects = {
            signal.SIGINT: sigint,
            signal.SIGHUP: sighup,
            signal.SIGTERM: Action.SNAPSHOT | Action.STOP,
            signal.SIGUSR1: Action.SNAPSHOT | Action.STOP,
            signal.SIGUSR2: Action.SNAPSHOT,
        }
        self._came: list[signal.Signals] = []
        self._stops = False
        self._last_s = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> Action:
        if not self._came:  # nearly always
            return Action.NONE
        came, self._came = self._came, []
        # All is read from this one list, so that a signal that comes meanwhile is in it or in the next.
        signals = tuple(came)
        asked = Action.NONE
        for name in signals:
            asked |= self._effects[name]
        names = " and ".join(name.name for name in signals)
        logger.info("%s: %s when this iteration, or batch of a test, is done", names, _describe(asked))
        return asked

    def __enter__(self) -> SignalWatch:
        if threading.current_thread() is threading.main_thread():
            for number in self._effects:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _note(self, number: int, _frame: types.FrameType | None) -> None:
        name = signal.Signals(number)
        effect = self._effects[name]
        now = time.monotonic()
        is_repeated = now - self._last_s < _SAME_SIGNAL_S
        if name == signal.SIGINT and self._stops and not is_repeated:
            raise KeyboardInterrupt
        if effect == Action.NONE:
            return
        self._last_s = now
        self._stops = self._stops or bool(effect & Action.STOP)
        if name not in self._came:
            self._came.append(name)


def _describe(asked: Action) -> str:
    words = [word for action, word in ((Action.SNAPSHOT, "a snapshot"), (Action.STOP, "stop")) if asked & action]
    return " and ".join(words)
