"""Data parallel training: the room where a Solver meets the other ranks.

Each rank runs the same net on its own records. Before a step the root's parameters go down the tree (``on_start``);
after it the gradients come up and are summed (``on_gradient_ready``); the root divides the sum by the number of ranks and
applies the update. So n ranks of batch b take the steps of one rank of batch n b, and there is one copy of the optimizer's
state. Parameters are exchanged as one flat array, gradients as another, running statistics as a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends import create_backend
from paratrain.comm import Communicator, TreeExchange
from paratrain.proto import SolverParameter
from paratrain.random import entropy
from paratrain.solvers import Solver, create_solver
from paratrain.topology.planner import plan_ranks
from paratrain.topology.tree import Tree

__all__ = ["DataParallel", "create_parallel_solver"]


class DataParallel:
    """The callbacks by which a solver trains together with those of the other ranks.

    All ranks add one to their solver before the first step, with solvers of the same net and the same tree. The learned
    parameters are the root's: changes made to another rank's own copy between steps are lost.
    """

    def __init__(self, solver: Solver, communicator: Communicator, tree: Tree) -> None:
        self._parameters = solver.net.parameters
        self._exchange = TreeExchange(communicator, tree)
        self._is_root = communicator.rank == tree.root
        self._scale = 1.0 / communicator.size
        solver.add_callback(self)
        solver.mean_over_ranks = self._mean_over_ranks
        solver.net.context.sum_over_ranks = self._sum_over_ranks

    def on_start(self) -> None:
        """Bring the root's newest parameters, and its running statistics, to every rank."""
        data, statistics = self._parameters.data, self._parameters.statistics
        self._exchange.broadcast(data.host() if self._is_root else data.mutable_host())
        self._exchange.broadcast(statistics.host() if self._is_root else statistics.mutable_host())

    def on_gradient_ready(self) -> None:
        """Sum the gradients up the tree; the root's become the average over ranks."""
        diff = self._parameters.diff.mutable_host()
        self._exchange.reduce(diff)
        if self._is_root:
            diff *= self._scale

    def on_finish(self) -> None:
        """Bring the last update to every rank, so that all hold the same parameters when ``step`` returns."""
        self.on_start()

    def _sum_over_ranks(self, array: Any) -> None:
        self._exchange.reduce(array)
        self._exchange.broadcast(array)

    def _mean_over_ranks(self, values: Sequence[float]) -> list[float]:
        return self._exchange.mean_scalars(values)


def create_parallel_solver(
    parameter: SolverParameter, communicator: Communicator, *, backend: str = "numpy", allow_python: bool = True
) -> Solver:
    """Return this rank's solver, joined to those of the other ranks by the tree that follows from where ranks run.

    All ranks call it with the same parameter. A negative ``random_seed`` is drawn by the root, the same for all ranks.
    """
    seed = parameter.random_seed
    if seed < 0:
        seed = communicator.broadcast_object(entropy())
    solver = create_solver(
        parameter,
        backend=create_backend(backend),
        rank=communicator.rank,
        size=communicator.size,
        seed=seed,
        allow_python=allow_python,
    )
    if communicator.size > 1:
        DataParallel(solver, communicator, plan_ranks(communicator.node_of_rank))
    return solver
