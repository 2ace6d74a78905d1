"""Waiting for other ranks: quick where they are about to answer, and without holding a core that they may need."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from paratrain.errors import CommunicationError

WaitListener = Callable[[int | None, float], None]
"""Is told, now and then, for which rank (-1: for others) this process waits and since how many seconds; None: no more."""

# A wait first asks without pause, then gives the core to whoever wants it, then sleeps between questions: with more ranks
# than cores, a waiting rank must not take the core from the one it waits for.
_EAGER_TESTS = 50
_YIELD_S = 0.002
_SLEEP_S = 0.0001
# Between questions whether the other rank has left, and after one that it has: what it sent before may still arrive.
_LOOK_FOR_LEFT_S = 0.05
_GRACE_S = 0.5

_listener: WaitListener | None = None


def tell_waits(listener: WaitListener | None) -> None:
    """Tell ``listener`` from now on of the long waits of this process; None: nobody."""
    global _listener
    _listener = listener


def pauses() -> Iterator[float]:
    """The pauses of one wait: each item, with the seconds since waiting began, is the time to ask once more."""
    for _ in range(_EAGER_TESTS):
        yield 0.0
    begin = time.monotonic()
    while True:
        waited_s = time.monotonic() - begin
        yield waited_s
        if waited_s < _YIELD_S:
            os.sched_yield()
        else:
            time.sleep(_SLEEP_S)


def wait_until(
    is_done: Callable[[], bool],
    check: Callable[[], None] | None = None,
    peer: int | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Return when `is_done` says so. Python's signal handlers run meanwhile, as they would not inside MPI_Wait.

    `check` raises CommunicationError when waiting has become pointless; it is asked now and then, and believed when it
    still says so half a second later. `peer` is the rank that is waited for, None where it may be any. `meanwhile` is called
    after every question that is not answered by yes.
    """
    next_look_s, is_doubted, is_told = _LOOK_FOR_LEFT_S, False, False
    for waited_s in pauses():
        if is_done():
            if is_told and _listener is not None:
                _listener(None, 0.0)
            return
        if meanwhile is not None:
            meanwhile()
        if waited_s >= next_look_s:
            if _listener is not None:
                is_told = True
                _listener(-1 if peer is None else peer, waited_s)
            try:
                if check is not None:
                    check()
                next_look_s, is_doubted = waited_s + _LOOK_FOR_LEFT_S, False
            except CommunicationError:
                if is_doubted:
                    raise
                next_look_s, is_doubted = waited_s + _GRACE_S, True
