"""The ranks of a run, joined by a tree: what a solver asks of them beside the exchange of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain.blob import Memory
from paratrain.comm import Communicator, TreeExchange
from paratrain.comm.shared_board import SharedBoard
from paratrain.net import Parameters
from paratrain.topology.hosts import RankPlace, local_place, numa_of_rank, sharing_warnings
from paratrain.topology.machine import MachineWarning
from paratrain.topology.planner import plan_ranks
from paratrain.topology.tree import Tree

__all__ = ["TreeRanks", "join_ranks", "tree_by_places"]


class TreeRanks:
    """The ranks of a communicator, joined by a tree: what a solver asks of them (:class:`paratrain.solvers.ranks.Ranks`)."""

    def __init__(self, communicator: Communicator, tree: Tree) -> None:
        self.rank = communicator.rank
        self.size = communicator.size
        self.tree = tree
        self.exchange = TreeExchange(communicator, tree)
        self._board = SharedBoard.create(communicator, tree.root)
        self.communicator = communicator
        self.parameters_are_common = False
        """Whether all ranks have their parameters in the same memory."""
        self.averages_statistics = False
        """Whether the running statistics of all ranks are averaged; otherwise the root's are everybody's."""
        self._is_root = communicator.rank == tree.root

    def broadcast_parameters(self, parameters: Parameters) -> None:
        """Bring the root's learnable parameters to every rank, and see to the running statistics."""
        if self.parameters_are_common:  # nothing to send: the others only wait until the root is here
            self.broadcast(np.zeros(1))
        else:
            self._broadcast(parameters.data)
        self.share_statistics(parameters)

    def share_statistics(self, parameters: Parameters) -> None:
        """Bring the root's running statistics, or those of all ranks averaged, to every rank."""
        if not self.averages_statistics:
            self._broadcast(parameters.statistics)
        elif parameters.statistics.count:
            # In float64 the mean of equal float32 values is that value to the bit: to average again changes nothing.
            means = parameters.statistics.host().astype(np.float64)
            self.sum(means)
            means /= self.size
            parameters.statistics.mutable_host()[...] = means

    def _broadcast(self, memory: Memory) -> None:
        self.broadcast(memory.host() if self._is_root else memory.mutable_host())

    def sum(self, values: Any) -> None:
        """Replace a C-contiguous host array by its sum over the ranks, the same bits on each."""
        self.sum_to_root(values)
        self.broadcast(values)

    def sum_to_root(self, values: Any) -> None:
        """Replace the root's ``values`` by their sums over the ranks."""
        if self._board is not None and 0 < values.nbytes <= SharedBoard.CAPACITY:
            self._board.reduce(values)
        else:
            self.exchange.reduce(values)

    def broadcast(self, values: Any) -> None:
        """Replace ``values`` by the root's."""
        if self._board is not None and 0 < values.nbytes <= SharedBoard.CAPACITY:
            self._board.broadcast(values)
        else:
            self.exchange.broadcast(values)

    def share_texts(self, text: str) -> list[str]:
        """Every rank's text, in the order of the ranks."""
        return list(self.communicator.allgather_objects(text))

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Every rank's value on the root, in the order of the ranks; None elsewhere."""
        return self.communicator.gather_objects(value)


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
