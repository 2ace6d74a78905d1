"""The ranks of a run, joined by a tree: what a solver asks of them beside the exchange of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain.blob import Memory
from paratrain.comm import Communicator, TreeExchange
from paratrain.net import Parameters
from paratrain.solvers.ranks import Values
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
        self.communicator = communicator
        self.parameters_are_common = False
        """Whether all ranks have their parameters in the same memory."""
        self._is_root = communicator.rank == tree.root

    def broadcast_parameters(self, parameters: Parameters) -> None:
        """Bring the root's learnable parameters and running statistics to every rank."""
        if self.parameters_are_common:  # nothing to send: the others only wait until the root is here
            self.exchange.broadcast(np.zeros(1))
        else:
            self._broadcast(parameters.data)
        self._broadcast(parameters.statistics)

    def broadcast_statistics(self, parameters: Parameters) -> None:
        """Bring the root's running statistics to every rank."""
        self._broadcast(parameters.statistics)

    def _broadcast(self, memory: Memory) -> None:
        self.exchange.broadcast(memory.host() if self._is_root else memory.mutable_host())

    def sum(self, values: Any) -> None:
        """Replace a C-contiguous host array by its sum over the ranks, the same bits on each."""
        self.exchange.reduce(values)
        self.exchange.broadcast(values)

    def sum_to_root(self, values: Values) -> None:
        """Replace the root's ``values`` by their sums over the ranks."""
        self.exchange.reduce(values)

    def broadcast(self, values: Values) -> None:
        """Replace ``values`` by the root's."""
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
