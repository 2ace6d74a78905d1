"""Solvers by the ``type`` that a solver prototxt calls them by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from paratrain.backends import Backend
from paratrain.proto import SolverParameter
from paratrain.registry import Registry
from paratrain.solvers.nets import NetOptions
from paratrain.solvers.ranks import Ranks
from paratrain.solvers.solver import Solver

__all__ = ["SOLVERS", "create_solver", "register_solver"]

SOLVERS: Registry[type[Solver]] = Registry("solver type")

S = TypeVar("S", bound=type[Solver])


def register_solver(name: str) -> Callable[[S], S]:
    """Return a class decorator that enters a solver under ``name``."""

    def decorate(solver: S) -> S:
        SOLVERS.add(name, solver)
        return solver

    return decorate


def create_solver(
    parameter: SolverParameter,
    *,
    backend: Backend,
    rank: int = 0,
    size: int = 1,
    seed: int | None = None,
    ranks: Ranks | None = None,
    net_options: NetOptions | None = None,
) -> Solver:
    """Return a new solver of ``parameter.type``. Raises UnknownNameError for an unknown type, and what Solver raises."""
    kind = SOLVERS.get(parameter.type)
    return kind(parameter, backend=backend, rank=rank, size=size, seed=seed, ranks=ranks, net_options=net_options)
