"""Adam: momentum and a rate of its own for every value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from paratrain.backends.base import AdamRule, UpdateRule
from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.solvers.adagrad import no_delta
from paratrain.solvers.factory import register_solver
from paratrain.solvers.solver import Solver

__all__ = ["AdamSolver"]


@register_solver("Adam")
class AdamSolver(Solver):
    """M = momentum * M + (1 - momentum) * gradient
    V = momentum2 * V + (1 - momentum2) * gradient^2
    w = w - rate * c * M / (sqrt(V) + delta), where c = sqrt(1 - momentum2^t) / (1 - momentum^t) and t = iteration + 1

    Kingma, Ba, "Adam" (2015), in Caffe's form: ``delta`` is added before the correction c of the means' bias. Two history
    values per learnable value: M and V.
    """

    history_count = 2

    @classmethod
    def find_problems(cls, parameter: SolverParameter) -> Iterator[SolverError]:
        """Yield an error for each setting that Adam cannot follow."""
        yield from super().find_problems(parameter)
        yield from no_delta(parameter)
        for name in ("momentum", "momentum2"):
            value = getattr(parameter, name)
            if not 0 <= value < 1:
                yield SolverError(
                    f"{name} is {value:g}; {parameter.type} averages with it, and it must be 0 or more, and below 1"
                )

    def prepare_update(self, rate: float) -> None:
        """Fix the correction of the bias, which all values share."""
        super().prepare_update(rate)
        settings, step = self.parameter, self.iter + 1
        self._root = math.sqrt(1.0 - settings.momentum2**step)
        self._correction = self._root / (1.0 - settings.momentum**step)
        self._delta = self.delta_of_step()

    def delta_of_step(self) -> float:
        """What is added to sqrt(V) in this step."""
        return self.parameter.delta

    def update_rule(self) -> UpdateRule | None:
        return AdamRule(self.momentum, self.parameter.momentum2, self._correction, self._delta)

    def compute_update_value(self, diff: Any, history: Sequence[Any], scratch: Any, rate: float) -> None:
        """Turn the gradient in ``diff`` into the value to subtract, and take it into M and V."""
        xp, (mean, mean_square) = self.backend.xp, history
        momentum2 = self.parameter.momentum2
        xp.multiply(diff, 1.0 - self.momentum, out=scratch)
        xp.multiply(mean, self.momentum, out=mean)
        xp.add(mean, scratch, out=mean)
        xp.multiply(diff, diff, out=diff)
        xp.multiply(diff, 1.0 - momentum2, out=diff)
        xp.multiply(mean_square, momentum2, out=mean_square)
        xp.add(mean_square, diff, out=mean_square)
        xp.sqrt(mean_square, out=diff)
        xp.add(diff, self._delta, out=diff)
        xp.divide(mean, diff, out=diff)
        xp.multiply(diff, rate * self._correction, out=diff)
