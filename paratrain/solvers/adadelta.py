"""AdaDelta: steps in the units of the parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from paratrain.backends.update_rules import AdaDeltaRule, UpdateRule
from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.solvers.adagrad import no_delta
from paratrain.solvers.factory import register_solver
from paratrain.solvers.solver import Solver

__all__ = ["AdaDeltaSolver"]


@register_solver("AdaDelta")
class AdaDeltaSolver(Solver):
    """G = momentum * G + (1 - momentum) * gradient^2
    u = gradient * sqrt((U + delta) / (G + delta))
    U = momentum * U + (1 - momentum) * u^2
    w = w - rate * u

    Zeiler, "ADADELTA" (2012), in Caffe's form: ``momentum`` is the decay of both means. Two history values per learnable value:
    G, the mean square of the gradients, and U, that of the steps before the rate.
    """

    history_count = 2

    @classmethod
    def find_problems(cls, parameter: SolverParameter) -> Iterator[SolverError]:
        """Yield an error for each setting that AdaDelta cannot follow."""
        yield from super().find_problems(parameter)
        yield from no_delta(parameter)
        if not 0 <= parameter.momentum < 1:
            yield SolverError(
                f"momentum is {parameter.momentum:g}; AdaDelta averages with it, and it must be 0 or more, and below 1"
            )

    def update_rule(self) -> UpdateRule | None:
        return AdaDeltaRule(self.momentum, self.parameter.delta)

    def compute_update_value(self, diff: Any, history: Sequence[Any], scratch: Any, rate: float) -> None:
        """Turn the gradient in ``diff`` into rate * u, and take in the squares of both."""
        xp, (gradients, steps), momentum, delta = self.backend.xp, history, self.momentum, self.parameter.delta
        xp.multiply(diff, diff, out=scratch)
        xp.multiply(scratch, 1.0 - momentum, out=scratch)
        xp.multiply(gradients, momentum, out=gradients)
        xp.add(gradients, scratch, out=gradients)

        # diff * sqrt(U + delta) / sqrt(G + delta).
        xp.add(gradients, delta, out=scratch)
        xp.divide(diff, xp.sqrt(scratch, out=scratch), out=diff)
        xp.add(steps, delta, out=scratch)
        xp.multiply(diff, xp.sqrt(scratch, out=scratch), out=diff)

        xp.multiply(diff, diff, out=scratch)
        xp.multiply(scratch, 1.0 - momentum, out=scratch)
        xp.multiply(steps, momentum, out=steps)
        xp.add(steps, scratch, out=steps)
        xp.multiply(diff, rate, out=diff)
