"""From a machine to the tree its GPUs should use, with the times predicted for it."""

from __future__ import annotations

from dataclasses import dataclass

from paratrain.errors import TopologyError
from paratrain.topology.cost import Prediction, cost_matrix, predict_tree
from paratrain.topology.machine import Machine, gpu_list
from paratrain.topology.planner import binomial, plan_tree
from paratrain.topology.tree import Tree

IN_ORDER = "tree in the order of the indices"


@dataclass(frozen=True)
class Plan:
    """A tree over the places in `machine.gpus` (None if there is no GPU), and predictions, the tree's own first."""

    machine: Machine
    byte_count: int
    tree: Tree | None
    predictions: tuple[Prediction, ...]

    def index(self, place: int) -> int:
        """The index of the GPU at a place, that is, of a member of the tree."""
        return self.machine.gpus[place].index


def plan_machine(machine: Machine, byte_count: int, root: int | None = None) -> Plan:
    """Plan the tree for exchanges of `byte_count` bytes under the GPU with the index `root` (the first one if None).

    It is the tree that follows the cheapest links, or the binomial tree in the order of the indices where that is
    predicted to be faster. TopologyError if the root is not one of the machine's GPUs.
    """
    if root is not None and root not in machine.indices:
        raise TopologyError(f"root {root}: expected one of the machine's GPUs; it has {gpu_list(machine.indices)}")
    if not machine.gpus:
        return Plan(machine, byte_count, None, ())
    place = 0 if root is None else machine.indices.index(root)
    by_links = plan_tree(cost_matrix(machine, byte_count), place)
    in_order = binomial(len(machine.gpus), place)
    predicted = predict_tree(machine, by_links, byte_count)
    predicted_in_order = predict_tree(machine, in_order, byte_count, IN_ORDER)
    if predicted_in_order.reduce_s < predicted.reduce_s:
        by_links, predicted = in_order, predict_tree(machine, in_order, byte_count)
    return Plan(machine, byte_count, by_links, (predicted, predicted_in_order))
