from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.data.orders import Sequential, Shuffled
from paratrain.data.sharding import ShardedReader, first_position

ORDERS = {
    "as they lie": lambda _: Sequential(),
    "shuffled": lambda count: Shuffled(count, 7, "data"),
    "in windows": lambda count: Shuffled(count, 7, "data", window=20),
    "in windows of one record": lambda count: Shuffled(count, 7, "data", window=1),
    "piece by piece": lambda count: Shuffled(count, 7, "data", pieces=[count // 2, count - count // 2]),
}


def reader_of(kind, count, rank=0, size=1, first=0):
    return ShardedReader(count, rank, size, first, ORDERS[kind](count))


def dealt_together(kind, count, size, batch_size, batches, first=0):
    """The records and counters of all ranks' batches, in the order of the sequence."""
    readers = [reader_of(kind, count, rank, size, first) for rank in range(size)]
    records, counters = [], []
    for batch in range(batches):
        dealt = [reader.samples(batch, batch_size) for reader in readers]
        records += np.stack([samples.records for samples in dealt], axis=1).ravel().tolist()
        counters += np.stack([samples.counters for samples in dealt], axis=1).ravel().tolist()
    return records, counters


@given(
    kind=st.sampled_from(sorted(ORDERS)),
    count=st.integers(2, 120),
    size=st.integers(1, 6),
    batch_size=st.integers(1, 40),
    batches=st.integers(1, 8),
    first=st.integers(0, 200),
)
def test_the_ranks_together_read_what_one_rank_reads(kind, count, size, batch_size, batches, first):
    """Every record comes once an epoch, whoever reads it, and has the counter epoch * count + record."""
    records, counters = dealt_together(kind, count, size, batch_size, batches, first)
    one = reader_of(kind, count, first=first).samples(0, len(records))
    assert (records, counters) == (one.records, one.counters.tolist())
    for start in range(-first % count, len(records) - count + 1, count):
        assert sorted(records[start : start + count]) == list(range(count))
    assert counters == [(first + i) // count * count + record for i, record in enumerate(records)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [7, 101])
@pytest.mark.parametrize("kind", sorted(ORDERS))
def test_odd_counts_come_out_even_over_any_ranks(kind, count, size):
    """Steps are whole on all ranks: over ``count`` steps every record has come as often as any other."""
    records, _ = dealt_together(kind, count, size, 4, count)
    assert np.bincount(records).tolist() == [4 * size] * count


@given(count=st.integers(1, 30), size=st.integers(1, 6), first=st.integers(0, 50))
def test_records_come_in_order_unless_they_are_shuffled(count, size, first):
    """The plain definition: walk over the endless sequence and deal it out like cards."""
    walk = [(first + k) % count for k in range(count * size * 2)]
    for rank in range(size):
        samples = ShardedReader(count, rank, size, first).samples(0, count * 2)
        assert samples.records == walk[rank::size]


def test_first_position_is_below_rand_skip_and_depends_on_seed_and_layer():
    assert first_position(0, 1, "data") == 0
    drawn = [first_position(10, seed, "data") for seed in range(200)]
    assert set(drawn) == set(range(10))
    assert drawn != [first_position(10, seed, "other") for seed in range(200)]
    assert drawn == [first_position(10, seed, "data") for seed in range(200)]


@pytest.mark.parametrize("kind", sorted(ORDERS))
def test_any_number_of_threads_may_ask_for_any_batch(kind):
    count, batch_size, batches = 101, 8, 200
    expected = [reader_of(kind, count).samples(batch, batch_size).records for batch in range(batches)]
    reader = reader_of(kind, count)
    asked = np.random.default_rng(1).permutation(np.tile(np.arange(batches), 4)).tolist()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda batch: reader.samples(batch, batch_size).records, asked))
    assert found == [expected[batch] for batch in asked]
