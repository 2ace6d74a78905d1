"""The simulation of what a plan says, beside its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paratrain.topology.costs.cost import Prediction
from paratrain.topology.costs.simulate import Simulated, simulate_trees
from paratrain.topology.planning.view import AnyPlan, view_of

MOST_TRANSFERS = 200_000  # a few seconds


@dataclass(frozen=True)
class Simulation:
    """A prediction, and what the simulation of the same exchange gave; None if it has more than `MOST_TRANSFERS`."""

    prediction: Prediction
    transfer_count: int
    simulated: Simulated | None


def simulate_plan(plan: AnyPlan) -> list[Simulation]:
    """Simulate the planned tree and, where trees on shards are faster, those. Empty if there is nobody to exchange with."""
    view = view_of(plan)
    if view.tree is None or view.tree.size < 2:
        return []
    kinds = [(plan.predictions[0], [view.tree])]
    if plan.shape == "sharded":
        kinds.append((plan.predictions[-1], list(plan.trees)))
    found = []
    for one, trees in kinds:
        count = 2 * (view.tree.size - 1) * one.chunk_count * len(trees)
        simulated = None
        if count <= MOST_TRANSFERS:
            simulated = simulate_trees(view.fabric, trees, plan.byte_count, one.chunk_count)
        found.append(Simulation(one, count, simulated))
    return found


def simulation_values(rows: Sequence[Simulation]) -> list[dict[str, Any]]:
    """The simulated times as plain values for JSON, in seconds."""
    return [
        {
            "method": row.prediction.method,
            "bytes": row.prediction.byte_count,
            "chunks": row.prediction.chunk_count,
            "reduce_s": None if row.simulated is None else row.simulated.reduce_s,
            "broadcast_s": None if row.simulated is None else row.simulated.broadcast_s,
            "predicted_s": row.prediction.total_s,
            "transfers": row.transfer_count,
        }
        for row in rows
    ]
