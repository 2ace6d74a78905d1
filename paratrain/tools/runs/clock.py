"""Seconds of training over the runs of one file: what goes by between them does not count."""

from __future__ import annotations

__all__ = ["RunClock"]


class RunClock:
    """Turns times of day into seconds since training began."""

    def __init__(self) -> None:
        self._before = 0.0
        self._begin: float | None = None
        self._last = 0.0

    def begin(self, now: float) -> None:
        """Training starts, or goes on after a pause."""
        self._before, self._begin = self._last, now

    def seconds(self, now: float) -> float:
        """Seconds of training until now; it has begun by now if nobody has said so."""
        if self._begin is None:
            self._begin = now
        self._last = self._before + max(0.0, now - self._begin)
        return round(self._last, 6)
