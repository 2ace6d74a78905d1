"""intel/caffe's learning-rate policy ``plateau``: the rate falls when the loss no longer does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from paratrain.proto import SolverParameter
from paratrain.solvers.display import SmoothedLoss
from paratrain.solvers.warm_up import is_warming_up

__all__ = ["Plateau"]

NO_MINIMUM = 1e38
"""What SolverState gives as minimum_loss before there is one."""


class Plateau:
    """How often the rate has fallen, and what decides when it falls again.

    The loss is smoothed over ``average_loss`` iterations. A new minimum of it is an event, and so is a fall of the rate. Where
    ``plateau_winsize[current_step]`` iterations have passed since the last event, the rate falls and ``current_step`` grows by
    one; with the last of the windows used up, the rate stays. While the rate warms up, nothing counts; a loss that is not finite
    is left out.
    """

    def __init__(self, parameter: SolverParameter) -> None:
        self._parameter = parameter
        self._smoothed = SmoothedLoss(parameter.average_loss)
        self.current_step = 0
        self.minimum_loss = NO_MINIMUM
        self.iter_last_event = 0

    def observe(self, iteration: int, loss: float) -> bool:
        """Take in the loss of ``iteration`` before its rate is asked for; return whether the rate falls now."""
        is_finite = math.isfinite(loss)
        if is_finite:
            self._smoothed.add(loss)
        if is_warming_up(self._parameter, iteration):
            return False
        if is_finite and self._smoothed.value < self.minimum_loss:
            self.minimum_loss, self.iter_last_event = self._smoothed.value, iteration
        windows = self._parameter.plateau_winsize
        if self.current_step >= len(windows) or iteration < self.iter_last_event + windows[self.current_step]:
            return False
        self.current_step += 1
        self.iter_last_event = iteration
        return True

    def state(self) -> dict[str, Any]:
        """What must be kept to go on: fields of SolverState under their names, and the ``losses`` of the smoothing."""
        return {
            "current_step": self.current_step,
            "minimum_loss": self.minimum_loss,
            "iter_last_event": self.iter_last_event,
            "losses": self._smoothed.losses,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned; all but ``current_step`` may be missing, as in a state that Caffe wrote."""
        self.current_step = int(state["current_step"])
        self.minimum_loss = float(state.get("minimum_loss", NO_MINIMUM))
        self.iter_last_event = int(state.get("iter_last_event", 0))
        self._smoothed = SmoothedLoss(self._parameter.average_loss)
        for loss in state.get("losses", ()):
            self._smoothed.add(float(loss))
