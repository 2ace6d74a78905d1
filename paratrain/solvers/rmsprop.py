"""RMSProp: rates that fall with the recent mean square of the gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from paratrain.backends.update_rules import RMSPropRule, UpdateRule
from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.solvers.adagrad import no_delta, no_momentum
from paratrain.solvers.factory import register_solver
from paratrain.solvers.solver import Solver

__all__ = ["RMSPropSolver"]


@register_solver("RMSProp")
class RMSPropSolver(Solver):
    """H = rms_decay * H + (1 - rms_decay) * gradient^2; w = w - rate * gradient / (sqrt(H) + delta).

    Tieleman, Hinton, "Lecture 6.5 - RMSProp" (2012), in Caffe's form. One history value per learnable value: H.
    """

    history_count = 1

    @classmethod
    def find_problems(cls, parameter: SolverParameter) -> Iterator[SolverError]:
        """Yield an error for each setting that RMSProp cannot follow."""
        yield from super().find_problems(parameter)
        yield from no_momentum(parameter)
        yield from no_delta(parameter)
        if not 0 <= parameter.rms_decay < 1:
            yield SolverError(f"rms_decay is {parameter.rms_decay:g}; it must be 0 or more, and below 1")

    def update_rule(self) -> UpdateRule | None:
        return RMSPropRule(self.parameter.rms_decay, self.parameter.delta)

    def compute_update_value(self, diff: Any, history: Sequence[Any], scratch: Any, rate: float) -> None:
        """Turn the gradient in ``diff`` into the value to subtract, and take its square into ``history[0]``."""
        xp, mean_square, decay = self.backend.xp, history[0], self.parameter.rms_decay
        xp.multiply(diff, diff, out=scratch)
        xp.multiply(scratch, 1.0 - decay, out=scratch)
        xp.multiply(mean_square, decay, out=mean_square)
        xp.add(mean_square, scratch, out=mean_square)
        xp.sqrt(mean_square, out=scratch)
        xp.add(scratch, self.parameter.delta, out=scratch)
        xp.divide(diff, scratch, out=diff)
        xp.multiply(diff, rate, out=diff)
