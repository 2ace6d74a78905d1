"""What may be asked of a solver while it trains: a snapshot, or an early end."""

from __future__ import annotations

import enum

__all__ = ["Action"]


class Action(enum.IntFlag):
    """What a solver does at the end of the iteration: nothing, a snapshot, a stop, or both."""

    NONE = 0
    SNAPSHOT = 1
    STOP = 2
