from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paratrain.data.sharding import ShardedReader, ShuffledReader, first_position


@given(
    count=st.integers(1, 30),
    size=st.integers(1, 6),
    batch_size=st.integers(1, 5),
    batches=st.integers(1, 8),
    first=st.integers(0, 50),
)
def test_the_ranks_together_read_what_one_rank_reads(count, size, batch_size, batches, first):
    one = ShardedReader(count, first=first)
    ranks = [ShardedReader(count, rank, size, first) for rank in range(size)]
    for batch in range(batches):
        together = np.stack([rank.positions(batch, batch_size) for rank in ranks], axis=1).ravel()
        assert together.tolist() == one.positions(batch, batch_size * size).tolist()


@given(count=st.integers(1, 30), size=st.integers(1, 6), first=st.integers(0, 50))
def test_every_record_comes_once_an_epoch_in_order(count, size, first):
    """The plain definition: walk over the endless sequence and deal it out like cards."""
    walk = [(first + k) % count for k in range(count * size * 2)]
    for rank in range(size):
        reader = ShardedReader(count, rank, size, first)
        assert reader.records(reader.positions(0, count * 2)) == walk[rank::size]


def test_first_position_is_below_rand_skip_and_depends_on_seed_and_layer():
    assert first_position(0, 1, "data") == 0
    drawn = [first_position(10, seed, "data") for seed in range(200)]
    assert set(drawn) == set(range(10))
    assert drawn != [first_position(10, seed, "other") for seed in range(200)]
    assert drawn == [first_position(10, seed, "data") for seed in range(200)]


@given(
    count=st.integers(1, 30),
    size=st.integers(1, 6),
    batch_size=st.integers(1, 40),
    batches=st.integers(1, 8),
    first=st.integers(0, 50),
)
def test_shuffled_epochs_hold_every_record_once_whoever_reads_them(count, size, batch_size, batches, first):
    """All ranks' batches, dealt back together, are one sequence; every whole epoch of it is a permutation."""
    ranks = [ShuffledReader(count, rank, size, first, 7, "data") for rank in range(size)]
    sequence = []
    for batch in range(batches):
        dealt = [rank.records(rank.positions(batch, batch_size)) for rank in ranks]
        sequence += np.stack(dealt, axis=1).ravel().tolist()
    one = ShuffledReader(count, first=first, seed=7, layer_name="data")
    assert sequence == one.records(one.positions(0, len(sequence)))
    for start in range(-first % count, len(sequence) - count + 1, count):
        assert sorted(sequence[start : start + count]) == list(range(count))


def test_shuffled_orders_differ_by_epoch_seed_and_layer_and_by_nothing_else():
    def order(epoch, seed=7, layer_name="data"):
        reader = ShuffledReader(1000, 0, 1, 0, seed, layer_name)
        return reader.records(reader.positions(epoch, 1000))

    orders = [order(0), order(1), order(12345), order(0, seed=8), order(0, layer_name="other"), list(range(1000))]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert order(12345) == orders[2]


def test_shuffled_orders_are_even():
    """Over many epochs each record is as often in each place: chi-square over 5 x 5 cells, 16 degrees of freedom."""
    counts = np.zeros((5, 5))
    reader = ShuffledReader(5, seed=1, layer_name="data")
    order = np.array(reader.records(reader.positions(0, 5 * 2000))).reshape(2000, 5)
    for place in range(5):
        counts[place] = np.bincount(order[:, place], minlength=5)
    assert ((counts - 400) ** 2 / 400).sum() < 45
