from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.errors import TopologyError
from paratrain.topology.costs.cluster import Cluster, ClusterFabric
from paratrain.topology.costs.cost import predict_tree
from paratrain.topology.costs.simulate import simulate_ring, simulate_trees
from paratrain.topology.known_machines import known_machine
from paratrain.topology.link_figures import LinkFigure, network_figure
from paratrain.topology.machine import CpuRank, Machine
from paratrain.topology.planner import binomial
from paratrain.topology.planning.cluster_plan import plan_cluster
from paratrain.topology.planning.compare import compare_methods
from paratrain.topology.planning.plan import plan_machine
from tests.unit.topology.machines import random_machines, uniform

LENET = 1_724_320


def test_members_and_links() -> None:
    cluster = Cluster((uniform(2, "NV2"), uniform(3, "PHB")))
    fabric = ClusterFabric(cluster)
    assert cluster.members == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))
    assert [cluster.name(member) for member in (1, 4)] == ["node 0 GPU1", "node 1 GPU2"]
    assert [cluster.link_class(*pair).word for pair in ((0, 1), (3, 2), (0, 2))] == ["NV2", "PHB", "NET"]
    assert fabric.figure(1, 2) == network_figure(cluster.nodes[0])
    assert fabric.path(1, 2) == ("node 0: card 0 out", "node 1: card 0 in")
    assert fabric.path(2, 3) == ("node 1: slot of GPU0 out", "node 1: slot of GPU1 in")
    assert fabric.crosses_sockets(0, 2) and not fabric.crosses_sockets(2, 3)


def test_cards_are_dealt_to_members_and_the_slower_end_decides() -> None:
    fast = replace(uniform(4, "NV2"), network=LinkFigure(40e9, 5e-6), network_cards=2)
    slow = replace(uniform(4, "NV2"), network=LinkFigure(10e9, 9e-6))
    fabric = ClusterFabric(Cluster((fast, slow)))
    assert fabric.figure(0, 4) == LinkFigure(10e9, 9e-6)
    assert [fabric.path(member, 4)[0] for member in range(4)] == ["node 0: card 0 out"] * 2 + ["node 0: card 1 out"] * 2
    assert fabric.capacity("node 0: card 1 out") == 40e9


@settings(deadline=None, max_examples=15)
@given(
    random_machines(5), random_machines(4), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1000, LENET, 10**8])
)
def test_any_nodes(one: Machine, other: Machine, ones: int, others: int, byte_count: int) -> None:
    cluster = Cluster((one,) * (ones + 1) + (other,) * others)
    plan = plan_cluster(cluster, byte_count)
    fabric = ClusterFabric(cluster)
    assert plan.tree.size == cluster.size
    assert cluster.members[plan.tree.root][0] == 0
    in_order = predict_tree(fabric, binomial(cluster.size), byte_count)
    assert plan.predictions[0].reduce_s <= in_order.reduce_s * (1 + 1e-8)
    if plan.tree_shape != "index":
        between = [edge for edge in plan.edges if edge.transport == "mpi"]
        assert len(between) == len(cluster.nodes) - 1
    for tree in plan.trees:
        tree.validate()
    assert sum(prediction.best for prediction in plan.predictions) == 1


def test_one_node_is_planned_as_such() -> None:
    machine = known_machine("dgx1-v100")
    alone, cluster = plan_machine(machine, LENET), plan_cluster(Cluster.of(machine, 1), LENET)
    assert cluster.tree == alone.tree
    assert cluster.predictions[0].total_s == pytest.approx(alone.predictions[0].total_s)


def test_ranks_drive_the_root_first() -> None:
    machine = uniform(3, "SYS").with_measured({(1, 2): LinkFigure(100e9, 1e-6, origin="measured")})
    plan = plan_cluster(Cluster.of(machine, 2), LENET)
    local_order = plan.node_plans[0].rank_order
    assert local_order[0] in (1, 2)
    assert plan.rank_order == tuple((node, index) for node in (0, 1) for index in local_order)
    in_turn = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    tree = plan.tree_of_ranks(in_turn)
    assert tree.root == 0
    crossing = [edge for edge in tree.edges() if in_turn[edge[0]][0] != in_turn[edge[1]][0]]
    assert crossing == [(0, 1)]
    with pytest.raises(TopologyError, match="each of 6 pairs of node and local rank once"):
        plan.tree_of_ranks(in_turn[:5])


def test_transports() -> None:
    cpu = Machine(cpu_ranks=(CpuRank(0), CpuRank(1)), source="hosts")
    plan = plan_cluster(Cluster((uniform(2, "NV2"), cpu)), LENET)
    assert sorted(edge.transport for edge in plan.edges) == ["ipc", "mpi", "mpi"]
    reasons = sorted(edge.reason for edge in plan.edges if edge.transport == "mpi")
    assert reasons[0].startswith(
        "both are CPU ranks of one node, but a tree over several nodes is made of MPI messages"
    )
    assert reasons[1].startswith("the two are on different nodes")


def test_what_is_no_cluster() -> None:
    with pytest.raises(TopologyError, match="at least one node"):
        Cluster.of(uniform(2, "NV1"), 0)
    with pytest.raises(TopologyError, match="node 1 .*has neither GPUs nor CPU ranks"):
        Cluster((uniform(2, "NV1"), Machine()))


@pytest.mark.timeout(60)
def test_a_thousand_gpus() -> None:
    cluster = Cluster.of(known_machine("hgx-h100"), 128)
    begun = time.perf_counter()
    plan = plan_cluster(cluster, LENET)
    assert time.perf_counter() - begun < 30  # a bound for a busy machine; benchmarks/topology.py measures
    assert plan.tree.size == 1024
    assert plan.tree.depth == 3 + 7
    fabric = ClusterFabric(cluster)
    simulated = simulate_trees(fabric, [plan.tree], LENET)
    assert simulated.reduce_s == pytest.approx(plan.predictions[0].reduce_s, rel=0.05)
    assert simulated.transfer_count == 2 * 1023
    assert simulate_ring(fabric, range(1024), LENET).total_s > 5 * simulated.total_s
    compared = compare_methods(plan)
    assert sum(prediction.best for prediction in compared) == 1
    assert {"ring", "rings on two levels", "two binary trees (as in NCCL)"} <= {one.method for one in compared}


def test_large_buffers_take_all_cards() -> None:
    machine = replace(known_machine("hgx-h100"), network_cards=8)
    plan = plan_cluster(Cluster.of(machine, 8), 10**9)
    assert (plan.shape, len(plan.trees)) == ("sharded", 8)
    one_card = plan_cluster(Cluster.of(replace(machine, network_cards=1), 8), 10**9)
    assert plan.predictions[2].total_s < 0.5 * one_card.predictions[2].total_s


@pytest.mark.parametrize("name", ["caffe-4x-pcie", "a100-pcie-8-bridged", "dgx2"])
def test_all_ways_on_one_machine(name: str) -> None:
    plan = plan_machine(known_machine(name), 10**8)
    compared = compare_methods(plan)
    assert compared[0].total_s == plan.predictions[0].total_s
    methods = [one.method for one in compared]
    assert len(set(methods)) == len(methods) >= 8
    best = [one for one in compared if one.best]
    assert len(best) == 1 and best[0].total_s == min(one.total_s for one in compared)


def test_nobody_to_compare() -> None:
    assert compare_methods(plan_machine(Machine(), 1)) == ()
    assert compare_methods(plan_machine(uniform(1, "PIX"), 1)) == ()
    assert len(compare_methods(plan_machine(uniform(2, "PIX"), 1))) >= 6
