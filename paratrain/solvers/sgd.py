"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends.base import MomentumRule, UpdateRule
from paratrain.solvers.factory import register_solver
from paratrain.solvers.solver import Solver
from paratrain.solvers.warm_up import momentum_correction

__all__ = ["SGDSolver"]


@register_solver("SGD")
class SGDSolver(Solver):
    """V = momentum * V + rate * gradient; w = w - V (Caffe's SGD, with the rate inside the history V).

    One history value per learnable value. Where no momentum is given, V is the plain step. While ``warmup_iter`` lasts the
    momentum is corrected (see paratrain.solvers.warm_up).
    """

    history_count = 1
    history_is_velocity = True

    def prepare_update(self, rate: float) -> None:
        """Fix the momentum of this iteration."""
        super().prepare_update(rate)
        self.momentum *= momentum_correction(self.parameter, self.iter)

    def update_rule(self) -> UpdateRule | None:
        return MomentumRule(self.momentum)

    def compute_update_value(self, diff: Any, history: Sequence[Any], scratch: Any, rate: float) -> None:
        """Turn the gradient in ``diff`` into V, and remember V in ``history[0]``."""
        xp, velocity = self.backend.xp, history[0]
        xp.multiply(diff, rate, out=diff)
        if self.momentum:
            xp.multiply(velocity, self.momentum, out=velocity)
            xp.add(diff, velocity, out=diff)
        velocity[...] = diff
