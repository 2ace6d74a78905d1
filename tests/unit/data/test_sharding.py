from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paratrain.data.sharding import ShardedReader, first_position


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
