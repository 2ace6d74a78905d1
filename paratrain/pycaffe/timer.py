"""Timer: how long something took."""

from __future__ import annotations

import time

from paratrain.pycaffe.modes import wait_for_gpus

__all__ = ["Timer"]


class Timer:
    """``timer.start(); ...; timer.stop()``, then ``timer.ms``: milliseconds by the wall clock.

    GPUs have done what nets and solvers of the script gave them before when it starts, and when it stops.
    """

    def __init__(self) -> None:
        self._begin: float | None = None
        self._elapsed_s = 0.0

    def start(self) -> None:
        """Begin to measure; a timer that runs goes on."""
        if self._begin is None:
            wait_for_gpus()
            self._begin = time.perf_counter()

    def stop(self) -> None:
        """End the measurement; nothing for a timer that does not run."""
        if self._begin is not None:
            wait_for_gpus()
            self._elapsed_s = time.perf_counter() - self._begin
            self._begin = None

    @property
    def ms(self) -> float:
        """The milliseconds of the last measurement; a timer that runs is stopped by this. 0 where there was none."""
        self.stop()
        return self._elapsed_s * 1000
