"""What ``--exchange`` would take on the CPU ranks of a plan, as ``paratrain topology`` shows it."""

from __future__ import annotations

from paratrain.comm.choose import slice_length_of
from paratrain.topology.costs.cluster import Cluster
from paratrain.topology.costs.training_step import STEP_EXCHANGES, StepPrediction, StepWork, predict_step
from paratrain.topology.planning.cluster_plan import ClusterPlan
from paratrain.topology.planning.view import AnyPlan

__all__ = ["predict_steps"]

_ITEM_BYTES = 4  # of float32


def predict_steps(plan: AnyPlan, byte_count: int) -> list[StepPrediction]:
    """The predicted training steps of all ranks of a plan, with SGD, for every exchange: what ``--exchange auto`` goes by."""
    tree = plan.tree
    assert tree is not None
    cluster = plan.cluster if isinstance(plan, ClusterPlan) else Cluster((plan.machine,))
    lengths = {name: slice_length_of(name, tree.size, is_one_node=len(cluster.nodes) == 1) for name in STEP_EXCHANGES}
    return [
        predict_step(name, cluster, tree, StepWork(byte_count, length * _ITEM_BYTES))
        for name, length in lengths.items()
    ]
