from __future__ import annotations

import math

import pytest

from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.costs.cost import TreeClock, predict_tree, predict_trees
from paratrain.topology.costs.exchanges import (
    doubling_rounds,
    predict_doubling,
    predict_halving,
    predict_ring,
    predict_two_levels,
    predict_two_trees,
    round_seconds,
    two_trees,
)
from paratrain.topology.costs.simulate import simulate_trees
from paratrain.topology.known_machines import known_machine
from paratrain.topology.planner import binomial
from paratrain.topology.planning.sharded import best_shards, chains_round, ring_order, stars_in_turn
from paratrain.topology.tree import chain
from tests.unit.topology.machines import machine_of, uniform

N = 64_000_000
SIZE = 8
FABRIC = MachineFabric(uniform(SIZE, "NV2", compute_capability="7.0"))
ALPHA, BETA = 3e-6, 1 / 40e9


def test_closed_forms_on_links_all_alike() -> None:
    members = range(SIZE)
    rings = 2 * (SIZE - 1) * ALPHA + 2 * (SIZE - 1) / SIZE * N * BETA
    assert predict_ring(FABRIC, members, N).total_s == pytest.approx(rings)
    assert predict_doubling(FABRIC, members, N).total_s == pytest.approx(3 * (ALPHA + N * BETA))
    halving = 2 * 3 * ALPHA + 2 * (SIZE - 1) / SIZE * N * BETA
    assert predict_halving(FABRIC, members, N).total_s == pytest.approx(halving)
    two = predict_two_levels(FABRIC, [[0, 1], [2, 3], [4, 5], [6, 7]], N)
    expected = 2 * ALPHA + 2 * 1 / 2 * N * BETA + 2 * 3 * ALPHA + 2 * 3 / 4 * N / 2 * BETA
    assert two.total_s == pytest.approx(expected)


@pytest.mark.parametrize("chunk_count", [1, 5, 40])
def test_chunks_follow_each_other_through_chain_and_tree(chunk_count: int) -> None:
    part = ALPHA + N / chunk_count * BETA
    in_chain = predict_tree(FABRIC, chain(SIZE), N, chunk_count=chunk_count).reduce_s
    assert in_chain == pytest.approx((SIZE - 1 + chunk_count - 1) * part)
    # The root of a binomial tree of 8 adds three children for each chunk.
    assert predict_tree(FABRIC, binomial(SIZE), N, chunk_count=chunk_count).reduce_s == pytest.approx(
        3 * chunk_count * part
    )


def test_the_best_count_of_chunks() -> None:
    clock = TreeClock(FABRIC, chain(SIZE))
    count = clock.best_chunk_count(N)
    assert count == pytest.approx(math.sqrt((SIZE - 2) * N * BETA / ALPHA), abs=1)
    assert clock.reduce_s(N, count) <= min(clock.reduce_s(N, other) for other in range(1, 62))
    assert clock.best_chunk_count(10**6) == 1  # never less than the trainer's chunk


@pytest.mark.parametrize("size", range(1, 34))
def test_two_trees_in_which_every_member_is_a_leaf_once(size: int) -> None:
    first, second = two_trees(range(size))
    for tree in (first, second):
        assert tree.depth <= max(0, size.bit_length())
        assert max(map(len, tree.children)) <= 2
    inner_in_both = [m for m in range(size) if first.children[m] and second.children[m]]
    assert len(inner_in_both) <= 1
    assert size % 2 or not inner_in_both


def test_two_trees_approach_the_rate_of_one_link() -> None:
    seconds = predict_two_trees(FABRIC, range(SIZE), N).total_s
    assert 2 * N * BETA / 2 < seconds < 1.5 * 2 * N * BETA


def test_shards_use_every_port() -> None:
    switch = MachineFabric(uniform(SIZE, "NV12", nvswitch=True, compute_capability="8.0"))
    expected = (SIZE - 1) * (3e-6 + N / SIZE / 240e9)
    assert predict_trees(switch, stars_in_turn(range(SIZE)), N, chunk_count=1).reduce_s == pytest.approx(expected)
    trees, predicted = best_shards(switch, N)
    assert predicted.reduce_s <= expected * (1 + 1e-9)
    assert sorted(tree.root for tree in trees) == list(range(SIZE))


def test_chains_round_a_ring_are_the_ring() -> None:
    members = [0, 2, 4, 6, 7, 5, 3, 1]
    simulated = simulate_trees(FABRIC, chains_round(members), N)
    assert simulated.reduce_s == pytest.approx(predict_ring(FABRIC, members, N).reduce_s)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 8, 12, 13])
@pytest.mark.parametrize("halving", [False, True])
def test_doubling_sums_on_every_member(size: int, halving: bool) -> None:
    """Follow which members' values reach whom: whole buffers, or the shard that every transfer carries."""
    rounds = doubling_rounds(range(size), 1024.0, halving)
    if halving:  # bytes: everybody gets (q-1)/q of the buffer twice, and those beyond the power of two once each way
        received = [0.0] * size
        for transfers in rounds:
            for _, target, byte_count in transfers:
                received[target] += byte_count
        power = 1 << (size.bit_length() - 1)
        for member in range(size):
            extra = 1024.0 if member < size - power or member >= power else 0.0
            assert received[member] == pytest.approx(extra + (0 if member >= power else 2 * 1024 * (power - 1) / power))
        return
    holds = [{member} for member in range(size)]
    for transfers in rounds:
        before = [set(held) for held in holds]
        for source, target, _ in transfers:
            holds[target] |= before[source]
    assert all(held == set(range(size)) for held in holds)


def test_transfers_of_a_round_share_segments() -> None:
    machine = machine_of(["X PIX SYS SYS", "PIX X SYS SYS", "SYS SYS X PIX", "SYS SYS PIX X"])
    fabric = MachineFabric(machine)
    alone = round_seconds(fabric, [(0, 2, 1e6)])
    assert round_seconds(fabric, [(0, 2, 1e6), (3, 1, 1e6)]) == pytest.approx(alone)  # one each way
    both = round_seconds(fabric, [(0, 2, 1e6), (1, 3, 1e6)])
    assert both - 6e-6 == pytest.approx(2 * (alone - 6e-6))


def test_the_worked_case_of_bridged_pairs() -> None:
    """100 MB on 8 A100 in NVLink pairs: two rings over the pairs cross the sockets at once, in 15.4 ms instead of 7.9."""
    fabric = MachineFabric(known_machine("a100-pcie-8-bridged"))
    two = predict_two_levels(fabric, [[0, 1], [2, 3], [4, 5], [6, 7]], 10**8)
    assert two.total_s == pytest.approx(15.4e-3, rel=0.01)
    assert predict_ring(fabric, range(8), 10**8).total_s == pytest.approx(17.5e-3, rel=0.01)
    assert predict_ring(fabric, range(8), 10**5).total_s == pytest.approx(100e-6, rel=0.05)
    assert predict_tree(fabric, binomial(8), 10**5).total_s == pytest.approx(60e-6, rel=0.02)


def test_a_ring_stays_on_near_links() -> None:
    fabric = MachineFabric(known_machine("dgx1-v100"))
    ring = ring_order(fabric, 8e6)
    assert sorted(ring) == list(range(8))
    assert not any(fabric.crosses_sockets(a, b) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
