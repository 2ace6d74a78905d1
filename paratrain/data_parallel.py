"""Data parallel training: the room where a Solver meets the other ranks.

Each rank runs the same net on its own records. Before a step the root's parameters go down the tree (``on_start``);
after it the gradients come up and are summed (``on_gradient_ready``); the root divides the sum by the number of ranks and
applies the update. So n ranks of batch b take the steps of one rank of batch n b, and there is one copy of the optimizer's
state. Parameters are exchanged as one flat array, gradients as another, running statistics as a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends import create_backend
from paratrain.comm import Communicator, TreeExchange
from paratrain.data.options import DataOptions, default_worker_count
from paratrain.net import Net, Parameters
from paratrain.proto import SolverParameter
from paratrain.random import entropy
from paratrain.solvers import Solver, create_solver
from paratrain.solvers.nets import NetOptions
from paratrain.solvers.ranks import Values
from paratrain.topology.hosts import RankPlace, local_place, numa_of_rank, sharing_warnings
from paratrain.topology.machine import MachineWarning
from paratrain.topology.planner import plan_ranks
from paratrain.topology.tree import Tree

__all__ = ["DataParallel", "TreeRanks", "create_parallel_solver", "exchanged_bytes", "join_ranks", "tree_by_places"]


class TreeRanks:
    """The ranks of a communicator, joined by a tree: what a solver asks of them (:class:`paratrain.solvers.ranks.Ranks`)."""

    def __init__(self, communicator: Communicator, tree: Tree) -> None:
        self.rank = communicator.rank
        self.size = communicator.size
        self.tree = tree
        self.exchange = TreeExchange(communicator, tree)
        self._communicator = communicator
        self._is_root = communicator.rank == tree.root

    def broadcast_parameters(self, parameters: Parameters) -> None:
        """Bring the root's learnable parameters and running statistics to every rank."""
        for memory in (parameters.data, parameters.statistics):
            self.exchange.broadcast(memory.host() if self._is_root else memory.mutable_host())

    def sum_to_root(self, values: Values) -> None:
        """Replace the root's ``values`` by their sums over the ranks."""
        self.exchange.reduce(values)

    def broadcast(self, values: Values) -> None:
        """Replace ``values`` by the root's."""
        self.exchange.broadcast(values)

    def share_texts(self, text: str) -> list[str]:
        """Every rank's text, in the order of the ranks."""
        return list(self._communicator.allgather_objects(text))

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Every rank's value on the root, in the order of the ranks; None elsewhere."""
        return self._communicator.gather_objects(value)


class DataParallel:
    """The callbacks by which a solver trains together with those of the other ranks.

    All ranks add one to their solver before the first step, with solvers of the same net and the same tree. The learned
    parameters are the root's: changes made to another rank's own copy between steps are lost.
    """

    def __init__(self, solver: Solver, ranks: TreeRanks) -> None:
        self._parameters = solver.net.parameters
        self._ranks = ranks
        self._is_root = ranks.rank == ranks.tree.root
        self._scale = 1.0 / ranks.size
        solver.add_callback(self)
        solver.mean_over_ranks = self._mean_over_ranks
        solver.net.context.sum_over_ranks = self._sum_over_ranks

    def on_start(self) -> None:
        """Bring the root's newest parameters, and its running statistics, to every rank."""
        self._ranks.broadcast_parameters(self._parameters)

    def on_gradient_ready(self) -> None:
        """Sum the gradients up the tree; the root's become the average over ranks."""
        diff = self._parameters.diff.mutable_host()
        self._ranks.exchange.reduce(diff)
        if self._is_root:
            diff *= self._scale

    def on_finish(self) -> None:
        """Bring the last update to every rank, so that all hold the same parameters when ``step`` returns."""
        self.on_start()

    def _sum_over_ranks(self, array: Any) -> None:
        self._ranks.exchange.reduce(array)
        self._ranks.exchange.broadcast(array)

    def _mean_over_ranks(self, values: Sequence[float]) -> list[float]:
        return self._ranks.exchange.mean_scalars(values)


def join_ranks(communicator: Communicator, tree: Tree | None = None) -> TreeRanks:
    """Return the ranks of ``communicator``, joined by ``tree``; where it is None, by the one that follows from where they run."""
    return TreeRanks(communicator, tree_by_places(communicator)[0] if tree is None else tree)


def tree_by_places(communicator: Communicator) -> tuple[Tree, list[MachineWarning]]:
    """Return the tree that follows from where ranks run, and what is doubtful about these places (T12).

    All ranks call it. The ranks of a node that are bound to one NUMA node are joined first, then those of the node.
    """
    places: list[RankPlace] = communicator.allgather_objects(local_place())
    nodes = communicator.node_of_rank
    return plan_ranks(nodes, numa_of_rank(places, nodes)), sharing_warnings(places, nodes)


def create_parallel_solver(
    parameter: SolverParameter,
    communicator: Communicator,
    *,
    backend: str = "numpy",
    net_options: NetOptions | None = None,
    tree: Tree | None = None,
) -> Solver:
    """Return this rank's solver, joined to those of the other ranks by ``tree`` (see :func:`join_ranks`).

    All ranks call it with the same parameter and tree. A negative ``random_seed`` is drawn by rank 0 for all ranks.
    """
    seed = parameter.random_seed
    if seed < 0:
        seed = communicator.broadcast_object(entropy())
    ranks = join_ranks(communicator, tree) if communicator.size > 1 else None
    if net_options is None:
        net_options = NetOptions(data=DataOptions(default_worker_count(communicator.local_size)))
    solver = create_solver(
        parameter,
        backend=create_backend(backend),
        rank=communicator.rank,
        size=communicator.size,
        seed=seed,
        ranks=ranks,
        net_options=net_options,
    )
    if ranks is not None:
        DataParallel(solver, ranks)
    return solver


def exchanged_bytes(net: Net, size: int) -> tuple[int, int]:
    """Predict the bytes that a step sends over each link of a tree of ``size`` ranks: (down, up); (0, 0) for one rank.

    Down go the parameters and the running statistics, up come the gradients, each once over each of size - 1 links.
    """
    if size == 1:
        return 0, 0
    parameters = net.parameters
    item_bytes = np.dtype(parameters.dtype).itemsize
    return (parameters.data.count + parameters.statistics.count) * item_bytes, parameters.diff.count * item_bytes
