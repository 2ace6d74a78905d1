"""AdaGrad: rates that fall with the squares of all gradients so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from paratrain.backends.update_rules import AdaGradRule, UpdateRule
from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.solvers.factory import register_solver
from paratrain.solvers.solver import Solver

__all__ = ["AdaGradSolver"]


@register_solver("AdaGrad")
class AdaGradSolver(Solver):
    """H = H + gradient^2; w = w - rate * gradient / (sqrt(H) + delta).

    Duchi, Hazan, Singer, "Adaptive Subgradient Methods" (2011), in Caffe's form. One history value per learnable value: H.
    """

    history_count = 1

    @classmethod
    def find_problems(cls, parameter: SolverParameter) -> Iterator[SolverError]:
        """Yield an error for each setting that AdaGrad cannot follow."""
        yield from super().find_problems(parameter)
        yield from no_momentum(parameter)
        yield from no_delta(parameter)

    def update_rule(self) -> UpdateRule | None:
        return AdaGradRule(self.parameter.delta)

    def compute_update_value(self, diff: Any, history: Sequence[Any], scratch: Any, rate: float) -> None:
        """Turn the gradient in ``diff`` into the value to subtract, and add its square to ``history[0]``."""
        xp, squares = self.backend.xp, history[0]
        xp.multiply(diff, diff, out=scratch)
        xp.add(squares, scratch, out=squares)
        xp.sqrt(squares, out=scratch)
        xp.add(scratch, self.parameter.delta, out=scratch)
        xp.divide(diff, scratch, out=diff)
        xp.multiply(diff, rate, out=diff)


def no_momentum(parameter: SolverParameter) -> Iterator[SolverError]:
    """Yield an error where a solver that has no momentum is given one."""
    if parameter.momentum != 0:
        yield SolverError(
            f"momentum is {parameter.momentum:g}, and solver type {parameter.type} has none; leave momentum out"
        )


def no_delta(parameter: SolverParameter) -> Iterator[SolverError]:
    """Yield an error where ``delta`` is 0: values whose gradients are all 0 would be moved by 0 / 0."""
    if parameter.delta == 0:
        yield SolverError(
            f"delta is 0, and solver type {parameter.type} divides by what it is added to; it must be above 0 (1e-8 if left out)"
        )
