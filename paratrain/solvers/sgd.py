"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.solvers.factory import register_solver
from paratrain.solvers.solver import Solver

__all__ = ["SGDSolver"]


@register_solver("SGD")
class SGDSolver(Solver):
    """V = momentum * V + rate * gradient; w = w - V (Caffe's SGD, with the rate inside the history V).

    One history value per learnable value. Where no momentum is given, V is the plain step.
    """

    history_count = 1

    def compute_update_value(self, diff: Any, history: Sequence[Any], rate: float) -> None:
        """Turn the gradient in ``diff`` into V, and remember V in ``history[0]``."""
        xp, velocity = self.backend.xp, history[0]
        xp.multiply(diff, rate, out=diff)
        xp.multiply(velocity, self.parameter.momentum, out=velocity)
        xp.add(diff, velocity, out=diff)
        velocity[...] = diff
