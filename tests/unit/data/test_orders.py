from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.data import orders
from paratrain.data.orders import Shuffled


def epoch_of(order, count, epoch=0):
    return order.records(epoch, np.arange(count, dtype=np.uint64)).tolist()


def test_orders_differ_by_epoch_seed_and_layer_and_by_nothing_else():
    def order(epoch, seed=7, layer_name="data"):
        return epoch_of(Shuffled(1000, seed, layer_name), 1000, epoch)

    found = [order(0), order(1), order(12345), order(0, seed=8), order(0, layer_name="other"), list(range(1000))]
    assert len({tuple(order) for order in found}) == len(found)
    assert order(12345) == found[2]


def test_orders_stay_the_same_from_version_to_version():
    """Snapshots count on it: these are the orders that the first version gave."""
    assert epoch_of(Shuffled(10, 1, "data"), 10) == [1, 3, 7, 0, 2, 9, 8, 4, 6, 5]
    assert epoch_of(Shuffled(10, 1, "data"), 10, 1) == [6, 5, 3, 8, 9, 4, 2, 1, 0, 7]
    assert epoch_of(Shuffled(10, 1, "data", window=3), 10) == [0, 9, 6, 8, 4, 7, 5, 2, 1, 3]


def test_every_order_comes_as_often_as_any_other():
    """All 24 of four records, over 4,800 epochs: chi-square with 23 degrees of freedom."""
    order = Shuffled(4, 1, "data")
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for epoch in range(4800):
        counts[tuple(epoch_of(order, 4, epoch))] += 1
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 60


@given(count=st.integers(1, 400), window=st.integers(1, 500), epoch=st.integers(0, 3))
def test_windows_hold_few_stretches_and_every_record_once(count, window, epoch):
    """By the definition: pieces of window // 16 records, 16 of them at a time, of which only the last may be shorter."""
    read = epoch_of(Shuffled(count, 3, "data", window=window), count, epoch)
    assert sorted(read) == list(range(count))
    if window >= count:
        assert read == epoch_of(Shuffled(count, 3, "data"), count, epoch)
        return
    length, at_once = max(1, window // 16), min(16, window)
    met = list(dict.fromkeys(record // length for record in read))  # pieces, as they are first read from
    done = 0
    for first in range(0, len(met), at_once):
        wanted = [
            r
            for piece in met[first : first + at_once]
            for r in range(piece * length, (piece + 1) * length)
            if r < count
        ]
        assert sorted(read[done : done + len(wanted)]) == sorted(wanted)
        done += len(wanted)
    assert done == count


def test_records_of_far_places_meet_in_a_window():
    count, window = 10_000, 320
    read = np.array(epoch_of(Shuffled(count, 3, "data", window=window), count)[:window])
    assert len(np.unique(read // 20)) == 16, "16 pieces of 20 records"
    assert read.max() - read.min() > count // 2
    assert (np.abs(np.diff(read)) == 1).sum() < 20, "which are mixed"


def test_pieces_of_given_lengths_come_one_after_the_other():
    lengths = [4, 1, 5]
    piece_of = np.repeat(np.arange(3), lengths)
    seen = set()
    for epoch in range(30):
        read = epoch_of(Shuffled(10, 3, "data", pieces=lengths), 10, epoch)
        assert sorted(read) == list(range(10))
        met = [piece for piece, _ in itertools.groupby(piece_of[read].tolist())]
        assert len(met) == 3
        seen.add(tuple(met))
    assert len(seen) == 6, "in any order"


@pytest.mark.parametrize("window", [None, 64])
def test_large_orders_are_made_ahead_by_a_thread_that_ends(monkeypatch, window):
    monkeypatch.setattr(orders, "_LARGE", 10)
    order, count = Shuffled(100, 1, "data", window=window), 100
    expected = [epoch_of(Shuffled(100, 1, "data", window=window), count, epoch) for epoch in range(3)]
    makers = []
    make = order._windows._make
    order._windows._make = lambda *key: (makers.append((key, threading.current_thread().name)), make(*key))[1]
    read = []
    for start in range(0, 300, 5):
        read += order.records(start // 100, np.arange(start, start + 5, dtype=np.uint64) % 100).tolist()
        for thread in threading.enumerate():
            if thread.name == "paratrain-shuffle":
                thread.join()
    assert read == [record for epoch in expected for record in epoch]
    assert [name for key, name in makers] == ["MainThread"] + ["paratrain-shuffle"] * (len(makers) - 1)
    assert len({key for key, _ in makers}) == len(makers), "each is made once"


def test_an_order_that_cannot_be_made_is_tried_again(monkeypatch):
    order = Shuffled(10, 1, "data")
    with monkeypatch.context() as patch:
        patch.setattr(orders, "permutation", lambda *_: (_ for _ in ()).throw(MemoryError("no memory")))
        for _ in range(2):
            with pytest.raises(MemoryError, match="no memory"):
                epoch_of(order, 10)
    assert sorted(epoch_of(order, 10)) == list(range(10))
