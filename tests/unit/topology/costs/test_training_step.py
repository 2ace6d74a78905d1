from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.topology.costs.cluster import Cluster
from paratrain.topology.costs.cost import predict_tree
from paratrain.topology.costs.training_step import (
    STEP_EXCHANGES,
    MessageFabric,
    StepPrediction,
    StepWork,
    predict_step,
)
from paratrain.topology.link_figures import LinkFigure, figures
from paratrain.topology.machine import CpuRank, Machine
from paratrain.topology.planner import plan_ranks

MB = 10**6
CORE = figures()["core"]["gb_per_s"] * 1e9
SLICE_S = figures()["core"]["slice_us"] * 1e-6
ADD_S = 1 / (figures()["shared"]["within_a_numa_node"]["gb_per_s"] * 1e9)
SHARED_LATENCY_S = figures()["shared"]["within_a_numa_node"]["latency_us"] * 1e-6
MESSAGE_S, MESSAGE_LATENCY_S = (
    1 / (figures()["messages"]["gb_per_s"] * 1e9),
    figures()["messages"]["latency_us"] * 1e-6,
)
NETWORK_S, NETWORK_LATENCY_S = (
    1 / (figures()["network"]["gb_per_s"] * 1e9),
    figures()["network"]["latency_us"] * 1e-6,
)


def cluster(*counts: int, network: LinkFigure | None = None, cards: int = 1) -> Cluster:
    nodes = [
        Machine(cpu_ranks=tuple(map(CpuRank, range(count))), network=network, network_cards=cards) for count in counts
    ]
    return Cluster(tuple(nodes))


def predict(exchange: str, work: StepWork, *counts: int, shares_memory: bool = True) -> StepPrediction:
    tree = plan_ranks([node for node, count in enumerate(counts) for _ in range(count)])
    return predict_step(exchange, cluster(*counts), tree, work, shares_memory=shares_memory)


def test_what_was_measured_with_two_ranks_and_60_million_values() -> None:
    """The order of benchmarks/results/exchange.md, and its times within the quarter that a model should reach there."""
    measured = {"sharded": 0.065, "tree": 0.189, "ring": 0.190, "mpi": 0.273}
    slice_bytes = {name: 8 << 20 if name == "sharded" else 1 << 20 for name in STEP_EXCHANGES}
    found = {name: predict(name, StepWork(240 * MB, slice_bytes[name]), 2).total_s for name in STEP_EXCHANGES}
    assert sorted(found, key=lambda name: found[name]) == list(measured)
    for name, seconds in measured.items():
        assert found[name] == pytest.approx(seconds, rel=0.25)


def test_shared_memory_closed_forms() -> None:
    work = StepWork(8 * MB, 1 * MB, history_count=2)
    tree = predict("tree", work, 2)
    assert tree.sum_s == pytest.approx(8 * MB * ADD_S + 8 * SHARED_LATENCY_S + 8 * SLICE_S)
    assert tree.update_s == pytest.approx(8 * MB * 8 / CORE)
    assert tree.spread_s == pytest.approx(SHARED_LATENCY_S)  # nothing is sent
    sharded = predict("sharded", work, 4)
    assert sharded.sum_s == pytest.approx(6 * MB * ADD_S + SHARED_LATENCY_S + 8 * SLICE_S)
    assert sharded.update_s == pytest.approx(2 * MB * 7 / CORE)  # the sums are in the cache
    assert sharded.total_s == pytest.approx(sharded.sum_s + sharded.update_s + sharded.spread_s)


def test_two_ranks_that_share_memory_add_as_they_update() -> None:
    found = predict("sharded", StepWork(8 * MB, 8 * MB, history_count=2), 2)
    assert found.sum_s == pytest.approx(4 * MB * ADD_S / 3 + SHARED_LATENCY_S + SLICE_S)
    assert found.update_s == pytest.approx(4 * MB * 7 / CORE)


def test_the_sum_up_a_shared_tree_is_what_the_planner_predicts() -> None:
    tree = plan_ranks([0] * 5)
    machine = cluster(5).nodes[0]
    found = predict_step("tree", Cluster((machine,)), tree, StepWork(9 * MB, 1 * MB))
    assert found.sum_s - 9 * SLICE_S == pytest.approx(predict_tree(machine, tree, 9 * MB, chunk_count=9).reduce_s)


@pytest.mark.parametrize("exchange", ["ring", "mpi"])
def test_messages_between_two_ranks_closed_form(exchange: str) -> None:
    """Half of the bytes each way, in each slice; the ring updates a half, after MPI's sum each rank updates all."""
    found = predict(exchange, StepWork(8 * MB, 1 * MB), 2)
    one_way = 8 * MESSAGE_LATENCY_S + 4 * MB * MESSAGE_S
    assert found.sum_s == pytest.approx(one_way + 4 * MB * ADD_S + 8 * SLICE_S)
    assert found.spread_s == pytest.approx(one_way)
    assert found.update_s == pytest.approx((4 if exchange == "ring" else 8) * MB * 6 / CORE)


def test_messages_over_a_chain_of_nodes() -> None:
    """Two nodes of one rank each: a tree sends all there and back, and adds at the root."""
    found = predict("tree", StepWork(8 * MB, 8 * MB), 1, 1)
    assert found.sum_s == pytest.approx(NETWORK_LATENCY_S + 8 * MB * (NETWORK_S + ADD_S) + SLICE_S)
    assert found.spread_s == pytest.approx(NETWORK_LATENCY_S + 8 * MB * NETWORK_S)


def test_parts_between_pairs_of_ranks_and_over_one_card() -> None:
    """2 nodes of 2, no memory in common: a quarter to the other rank of the node, and two to each rank of the other node,
    which the two ranks of a node send over one card."""
    found = predict("sharded", StepWork(8 * MB, 4 * MB), 2, 2, shares_memory=False)
    one_way = 2 * MESSAGE_LATENCY_S + 2 * MB * MESSAGE_S + 4 * NETWORK_LATENCY_S + 2 * 2 * MB * 2 * NETWORK_S
    assert found.spread_s == pytest.approx(one_way)
    assert found.sum_s == pytest.approx(one_way + 6 * MB * ADD_S + 2 * SLICE_S)


def test_a_tree_over_two_nodes_of_two() -> None:
    """Both nodes add in shared memory at the same time; then everything goes once over the network, and once back."""
    found = predict("tree", StepWork(8 * MB, 8 * MB), 2, 2)
    within, between = SHARED_LATENCY_S + 8 * MB * ADD_S, NETWORK_LATENCY_S + 8 * MB * (NETWORK_S + ADD_S)
    assert found.sum_s == pytest.approx(within + between + SLICE_S)
    assert found.spread_s == pytest.approx(NETWORK_LATENCY_S + 8 * MB * NETWORK_S + SHARED_LATENCY_S)
    assert found.update_s == pytest.approx(8 * MB * 6 / CORE)
    half = predict("tree", StepWork(8 * MB, 8 * MB, sent_share=0.5), 2, 2)
    assert found.sum_s - half.sum_s == pytest.approx(4 * MB * NETWORK_S)
    by_messages = predict("tree", StepWork(8 * MB, 8 * MB), 2, 2, shares_memory=False)
    assert by_messages.sum_s - found.sum_s == pytest.approx(8 * MB * MESSAGE_S + MESSAGE_LATENCY_S - SHARED_LATENCY_S)


def test_roots_on_one_node() -> None:
    """3 of 4 ranks own a third each, of which they add what the three others have."""
    found = predict("sharded", StepWork(12 * MB, 12 * MB, root_count=3), 4)
    assert found.sum_s == pytest.approx(12 * MB * ADD_S + SHARED_LATENCY_S + SLICE_S)
    assert found.update_s == pytest.approx(4 * MB * 5 / CORE)
    messages = predict("sharded", StepWork(12 * MB, 12 * MB, root_count=3), 4, shares_memory=False)
    assert messages.spread_s == pytest.approx(3 * MESSAGE_LATENCY_S + 12 * MB * MESSAGE_S)
    assert messages.sum_s == pytest.approx(messages.spread_s + 12 * MB * ADD_S + SLICE_S)


def test_roots_on_two_nodes() -> None:
    """3 roots: two on the first node, which adds two thirds that come from the second; there, one."""
    found = predict("sharded", StepWork(12 * MB, 12 * MB, root_count=3), 2, 2)
    one_way = NETWORK_LATENCY_S + 8 * MB * NETWORK_S
    assert found.spread_s == pytest.approx(one_way)
    assert found.sum_s == pytest.approx(8 * MB * ADD_S + one_way + 4 * MB * ADD_S + SLICE_S)
    assert found.update_s == pytest.approx(4 * MB * 6 / CORE)
    one = predict("sharded", StepWork(12 * MB, 12 * MB, root_count=1), 2, 2)
    assert one.spread_s == pytest.approx(NETWORK_LATENCY_S + 12 * MB * NETWORK_S)


@given(st.sampled_from([(4,), (2, 2), (1, 1, 1, 1), (2, 1, 3)]), st.integers(0, 10**8), st.booleans())
def test_as_many_roots_as_there_can_be_are_the_default(
    counts: tuple[int, ...], byte_count: int, shares_memory: bool
) -> None:
    work = StepWork(byte_count, 1 << 20)
    most = sum(counts) if len(counts) == 1 or max(counts) == 1 or not shares_memory else len(counts) * min(counts)
    found = predict("sharded", work, *counts, shares_memory=shares_memory)
    asked = predict("sharded", replace(work, root_count=most), *counts, shares_memory=shares_memory)
    for part in ("sum_s", "update_s", "spread_s"):
        assert getattr(asked, part) == pytest.approx(getattr(found, part))


@pytest.mark.parametrize("exchange", ["sharded", "ring"])
def test_two_levels_closed_form(exchange: str) -> None:
    """3 nodes of 2 ranks: each rank sums half in its node, then exchanges it with 2 others over a card for both halves."""
    found = predict(exchange, StepWork(12 * MB, 6 * MB), 2, 2, 2)
    one_way = 2 * 2 * NETWORK_LATENCY_S + 8 * MB * NETWORK_S
    assert found.spread_s == pytest.approx(one_way)
    assert found.sum_s == pytest.approx(6 * MB * ADD_S + one_way + 4 * MB * ADD_S + 2 * SLICE_S)
    assert found.update_s == pytest.approx(2 * MB * 6 / CORE)


def test_many_ranks_share_the_memory_of_their_node() -> None:
    """Adding moves three bytes for each; 32 ranks cannot all have a core's full rate."""
    memory = figures()["shared"]["memory_gb_per_s"] * 1e9
    found = predict("sharded", StepWork(320 * MB, 320 * MB), 32)
    assert found.sum_s == pytest.approx(31 * 320 * MB / memory + SHARED_LATENCY_S + SLICE_S)
    assert found.update_s == pytest.approx(320 * MB * 5 / (3 * memory))
    numa = Machine(cpu_ranks=tuple(CpuRank(index, index // 16) for index in range(32)))
    split = predict_step("sharded", Cluster((numa,)), plan_ranks([0] * 32), StepWork(320 * MB, 320 * MB))
    assert split.update_s == pytest.approx(found.update_s / 2)  # two NUMA nodes have twice the memory bandwidth


def test_measured_links_take_the_place_of_the_catalogue() -> None:
    slow = LinkFigure(1e9, 0.0, origin="measured")
    machine = replace(cluster(2).nodes[0], measured={(0, 1): slow})
    found = predict_step("sharded", Cluster((machine,)), plan_ranks([0, 0]), StepWork(8 * MB, 8 * MB))
    assert found.sum_s == pytest.approx(4 * MB / 1e9 / 3 + SHARED_LATENCY_S + SLICE_S)
    network = LinkFigure(125e6, 1e-3, origin="given")
    tree = plan_ranks([0, 0, 1, 1])
    work = StepWork(8 * MB, 8 * MB)
    over_1_gbit = predict_step("sharded", cluster(2, 2, network=network), tree, work)
    assert over_1_gbit.spread_s == pytest.approx(1e-3 + 4 * MB / 125e6)
    two_cards = predict_step("sharded", cluster(2, 2, network=network, cards=2), tree, work)
    assert two_cards.spread_s == pytest.approx(1e-3 + 2 * MB / 125e6)


@pytest.mark.parametrize(
    ("exchange", "counts"), [("tree", (1, 1)), ("sharded", (1, 1)), ("ring", (1, 1)), ("ring", (2, 2))]
)
def test_gradients_of_half_the_bytes(exchange: str, counts: tuple[int, ...]) -> None:
    """They save half of the time that bytes take on the way up, and nothing else."""
    whole, half = (predict(exchange, StepWork(8 * MB, 8 * MB, sent_share=share), *counts) for share in (1.0, 0.5))
    sent = 8 * MB if exchange == "tree" else 4 * MB
    assert whole.sum_s - half.sum_s == pytest.approx(sent * NETWORK_S / 2)
    assert (half.update_s, half.spread_s) == (whole.update_s, whole.spread_s)


def test_a_rank_alone_only_updates() -> None:
    for exchange in STEP_EXCHANGES:
        found = predict(exchange, StepWork(8 * MB, 1 * MB), 1)
        assert found.sum_s == found.spread_s == 0
        assert found.update_s == pytest.approx(8 * MB * 6 / CORE)


def test_a_message_within_a_node_is_no_shared_memory() -> None:
    fabric = MessageFabric(cluster(2, 1), adding=True)
    assert 1 / fabric.figure(0, 1).bytes_per_s == pytest.approx(MESSAGE_S + ADD_S)
    assert 1 / fabric.figure(0, 2).bytes_per_s == pytest.approx(NETWORK_S + ADD_S)
    assert MessageFabric(cluster(2), adding=False).figure(0, 1).latency_s == MESSAGE_LATENCY_S


layouts = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(st.sampled_from(STEP_EXCHANGES), layouts, st.integers(0, 10**8), st.integers(0, 3), st.booleans())
def test_more_work_takes_longer(
    exchange: str, counts: list[int], byte_count: int, history_count: int, shares_memory: bool
) -> None:
    work = StepWork(byte_count, 1 << 20, history_count)
    found = predict(exchange, work, *counts, shares_memory=shares_memory)
    assert found.exchange == exchange
    assert all(math.isfinite(part) and part >= 0 for part in (found.sum_s, found.update_s, found.spread_s))
    more = predict(exchange, replace(work, byte_count=byte_count + (1 << 20)), *counts, shares_memory=shares_memory)
    assert more.sum_s >= found.sum_s
    assert more.total_s > found.total_s
    adam = predict(exchange, replace(work, history_count=history_count + 1), *counts, shares_memory=shares_memory)
    assert adam.update_s >= found.update_s
    assert (adam.sum_s, adam.spread_s) == (found.sum_s, found.spread_s)


@given(st.integers(2, 16), st.integers(1, 10**9))
def test_sharing_the_update_never_loses_on_one_node(count: int, byte_count: int) -> None:
    work = StepWork(byte_count, 1 << 20)
    sharded = predict("sharded", work, count)
    assert sharded.total_s <= predict("mpi", work, count).total_s
    assert sharded.update_s <= predict("tree", work, count).update_s
