"""Nesterov's accelerated gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends.update_rules import NesterovRule, UpdateRule
from paratrain.solvers.factory import register_solver
from paratrain.solvers.solver import Solver

__all__ = ["NesterovSolver"]


@register_solver("Nesterov")
class NesterovSolver(Solver):
    """V' = momentum * V + rate * gradient; w = w - ((1 + momentum) * V' - momentum * V) (Caffe's form).

    The gradient is taken where the net is, at w. One history value per learnable value: V, as SGD keeps it.
    """

    history_count = 1
    history_is_velocity = True

    def update_rule(self) -> UpdateRule | None:
        return NesterovRule(self.momentum)

    def compute_update_value(self, diff: Any, history: Sequence[Any], scratch: Any, rate: float) -> None:
        """Turn the gradient in ``diff`` into (1 + momentum) * V' - momentum * V, and remember V' in ``history[0]``."""
        xp, velocity = self.backend.xp, history[0]
        xp.multiply(diff, rate, out=diff)
        xp.multiply(velocity, self.momentum, out=scratch)
        xp.add(diff, scratch, out=velocity)
        xp.multiply(velocity, 1.0 + self.momentum, out=diff)
        xp.subtract(diff, scratch, out=diff)
