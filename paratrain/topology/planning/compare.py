"""All ways to exchange on one machine or cluster, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from paratrain.topology.costs.cluster import ClusterFabric
from paratrain.topology.costs.contention import Fabric, MachineFabric
from paratrain.topology.costs.cost import Prediction, predict_tree
from paratrain.topology.costs.exchanges import (
    predict_doubling,
    predict_halving,
    predict_ring,
    predict_two_levels,
    predict_two_trees,
)
from paratrain.topology.planning.canonical import canonical_places
from paratrain.topology.planning.cluster_plan import ClusterPlan, plan_cluster
from paratrain.topology.planning.plan import Plan, mark_best, plan_machine
from paratrain.topology.planning.sharded import ring_order


def compare_methods(plan: Plan | ClusterPlan) -> tuple[Prediction, ...]:
    """The predictions of `plan`, and those of every other way for the same bytes; the fastest of all has `best` set.

    The others are the planned tree with whole buffers, chain, star, ring, recursive doubling, halving and doubling, two
    binary trees, and rings on two levels if there are groups of one size. Empty if there is nobody to exchange with.
    """
    if plan.tree is None or plan.tree.size < 2:
        return ()
    if isinstance(plan, ClusterPlan):
        fabric: Fabric = ClusterFabric(plan.cluster)
        order: Sequence[int] = range(fabric.size)
        ring = order
        groups = [_groups(order, [node for node, _ in plan.cluster.members])]
        others: list[Plan | ClusterPlan] = [plan_cluster(plan.cluster, plan.byte_count, "chain")]
    else:
        machine = plan.machine
        fabric = MachineFabric(machine)
        order = canonical_places(fabric)
        ring = [order[at] for at in ring_order(fabric.reordered(order), plan.byte_count / len(order))]
        groups = [_groups(order, fabric.sockets), _groups(order, fabric.islands), _pairs(fabric, order)]
        others = [plan_machine(machine, plan.byte_count, shape=shape) for shape in ("chain", "star")]
    found = list(plan.predictions)
    own = found[0]
    if own.chunk_count > 1:
        found.append(predict_tree(fabric, plan.tree, plan.byte_count, f"{own.method}, whole buffers", 1))
    for other in others:
        if other.tree_shape != plan.tree_shape:
            found.append(other.predictions[0])
    found.append(predict_ring(fabric, ring, plan.byte_count))
    for predict in _OTHER_WAYS:
        found.append(predict(fabric, order, plan.byte_count))
    on_two_levels = [predict_two_levels(fabric, group, plan.byte_count) for group in groups if _is_two_levels(group)]
    if on_two_levels:
        found.append(min(on_two_levels, key=lambda one: one.total_s))
    return mark_best([replace(one, best=False) for one in found])


_OTHER_WAYS: tuple[Callable[[Fabric, Sequence[int], int], Prediction], ...] = (
    predict_doubling,
    predict_halving,
    predict_two_trees,
)


def _groups(order: Sequence[int], number: Sequence[int]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for member in order:
        groups.setdefault(number[member], []).append(member)
    return list(groups.values())


def _pairs(fabric: MachineFabric, order: Sequence[int]) -> list[list[int]]:
    """Pairs of members each of which is the other's fastest; fewer than all members if some have no such partner."""
    nearest = {
        one: max((other for other in order if other != one), key=lambda o: _rate(fabric, one, o)) for one in order
    }
    return [
        [one, other]
        for one, other in nearest.items()
        if nearest[other] == one and order.index(one) < order.index(other)
    ]


def _rate(fabric: Fabric, one: int, other: int) -> float:
    return fabric.figure(one, other).bytes_per_s


def _is_two_levels(groups: Sequence[Sequence[int]]) -> bool:
    sizes = {len(group) for group in groups}
    return len(groups) > 1 and len(sizes) == 1 and sizes != {1}
