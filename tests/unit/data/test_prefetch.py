from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from paratrain.blob import Blob, SyncedMemory
from paratrain.data import Prefetcher
from paratrain.data.prefetch import call_within
from paratrain.data.ring import RingMemory
from paratrain.errors import DataError
from tests.paths import REPOSITORY


def ring(count):
    return [(np.zeros(3), np.zeros(1)) for _ in range(count)]


def fill_number(batch, _piece, data, label):
    data[...] = batch
    label[...] = -batch


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "paratrain-prefetch"]


@pytest.mark.parametrize("slot_count", [1, 2, 4])
def test_batches_come_in_order_and_stay_until_the_next(slot_count):
    slots = ring(slot_count)
    prefetcher = Prefetcher(fill_number, slots)
    for batch in range(50):
        data, label = slots[prefetcher.get()]
        if batch % 10 == 0:
            time.sleep(0.002)
        assert data.tolist() == [batch] * 3
        assert label.tolist() == [-batch]
    assert prefetcher.next_batch == 50
    prefetcher.close()


def test_the_thread_runs_ahead_by_the_length_of_the_ring_and_no_more():
    filled = []
    prefetcher = Prefetcher(lambda batch, *_: filled.append(batch), ring(4))
    assert not prefetch_threads(), "nothing starts before the first get"
    prefetcher.get()
    deadline = time.monotonic() + 5
    while len(filled) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert filled == [0, 1, 2, 3], "three are ready while one is lent out"
    prefetcher.close()


def test_waiting_is_counted():
    prefetcher = Prefetcher(lambda *_: time.sleep(0.02), ring(2))
    prefetcher.get()
    prefetcher.get()
    assert prefetcher.wait_s > 0.02
    prefetcher.close()


def test_an_error_arrives_with_its_batch_and_stays():
    def fill(batch, *_):
        if batch == 3:
            raise KeyError("record 3")

    prefetcher = Prefetcher(fill, ring(4))
    for _ in range(3):
        prefetcher.get()
    for _ in range(2):
        with pytest.raises(KeyError, match="record 3"):
            prefetcher.get()
    prefetcher.close()
    assert not prefetch_threads()


def test_seek_goes_on_elsewhere_and_keeps_the_lent_slot():
    slots = ring(3)
    prefetcher = Prefetcher(fill_number, slots)
    lent = slots[prefetcher.get()][0]
    prefetcher.seek(40)
    assert lent.tolist() == [0, 0, 0]
    for batch in range(40, 50):
        assert slots[prefetcher.get()][0].tolist() == [batch] * 3
    prefetcher.seek(5)
    assert slots[prefetcher.get()][0].tolist() == [5] * 3
    prefetcher.close()


@pytest.mark.parametrize("slot_count", [1, 3])
def test_close_ends_the_thread_then_frees_the_source_once(slot_count):
    alive_when_freed = []
    prefetcher = Prefetcher(fill_number, ring(slot_count), lambda: alive_when_freed.append(len(prefetch_threads())))
    prefetcher.get()
    assert len(prefetch_threads()) == 1
    prefetcher.close()
    prefetcher.close()
    assert alive_when_freed == [0]


def test_a_forgotten_prefetcher_ends_its_thread():
    freed = []
    prefetcher = Prefetcher(fill_number, ring(2), lambda: freed.append(True))
    prefetcher.get()
    del prefetcher
    gc.collect()
    assert not prefetch_threads()
    assert freed == [True]


def test_the_interpreter_exits_while_batches_are_being_read():
    code = """
import time
from paratrain.data import Prefetcher
import numpy as np
slots = [(np.zeros(1),) for _ in range(3)]
def fill(batch, piece, array):
    time.sleep(0.01)
    array[...] = batch
prefetcher = Prefetcher(fill, slots, lambda: print("freed"))
prefetcher.get()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, timeout=30, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("freed\n", "")


@pytest.mark.parametrize(("workers", "pieces"), [(2, 1), (3, 2), (5, 4)])
def test_batches_come_in_order_whoever_ends_first(workers, pieces):
    slots = [(np.full(pieces, -1),) for _ in range(3)]
    pauses = np.random.default_rng(1).uniform(0, 0.003, 1000)

    def fill(batch, piece, array):
        time.sleep(pauses[(7 * batch + piece) % 1000])
        array[piece] = batch

    prefetcher = Prefetcher(fill, slots, worker_count=workers, piece_count=pieces)
    for batch in range(60):
        assert slots[prefetcher.get()][0].tolist() == [batch] * pieces
    assert len(prefetch_threads()) == workers
    prefetcher.seek(7)
    assert slots[prefetcher.get()][0].tolist() == [7] * pieces
    prefetcher.close()
    assert not prefetch_threads()


def test_the_pieces_of_one_batch_are_filled_side_by_side():
    together = threading.Barrier(3, timeout=10)  # broken unless three threads fill the only place at once
    prefetcher = Prefetcher(lambda *_: together.wait(), [()], worker_count=3, piece_count=3)
    for _ in range(4):
        prefetcher.get()
    prefetcher.close()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_of_several_errors_the_first_in_order_arrives(workers):
    def fill(batch, piece):
        if batch >= 2:
            time.sleep(0.02 if (batch, piece) == (2, 1) else 0)  # the others are there long before
            raise KeyError(f"{batch}.{piece}")
        time.sleep(0.001)

    for failing in (lambda b, p: fill(b, p) if (b, p) != (2, 0) else None, fill):
        prefetcher = Prefetcher(failing, [()] * 4, worker_count=workers, piece_count=2)
        for _ in range(2):
            prefetcher.get()
        with pytest.raises(KeyError, match=r"2\.0" if failing is fill else r"2\.1"):
            prefetcher.get()
        prefetcher.close()
    assert not prefetch_threads()


def test_a_thread_that_hangs_is_an_error_that_says_where_and_closing_does_not_wait():
    never, freed = threading.Event(), []

    def fill(batch, piece):
        if batch == 2:
            never.wait()

    prefetcher = Prefetcher(
        fill,
        [()] * 3,
        lambda: freed.append(True),
        worker_count=2,
        time_limit_s=0.3,
        reading=lambda batch: [f"record {batch}"],
    )
    prefetcher.get(), prefetcher.get()
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"record 2: reading it has not ended within 0\.3 s.*--data-timeout"):
        prefetcher.get()
    prefetcher.close()
    assert time.monotonic() - begin < 5
    assert not freed, "the thread may still be reading"
    never.set()
    deadline = time.monotonic() + 5
    while prefetch_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not prefetch_threads()


def test_a_source_that_is_slow_but_moves_is_waited_for():
    records = iter(range(1000))
    prefetcher = Prefetcher(
        lambda *_: time.sleep(0.7), [()], time_limit_s=0.2, reading=lambda _: [f"record {next(records)}"]
    )
    prefetcher.get()
    prefetcher.close()


def test_a_call_is_waited_for_so_long_and_no_longer():
    assert call_within(5, lambda: 3, lambda: "it") == 3
    with pytest.raises(KeyError, match="inside"):
        call_within(5, lambda: {}["inside"], lambda: "it")
    with pytest.raises(TimeoutError, match="its own"):
        call_within(5, lambda: (_ for _ in ()).throw(TimeoutError("its own")), lambda: "it")
    never = threading.Event()
    with pytest.raises(DataError, match=r"the first record has not ended within 0\.05 s"):
        call_within(0.05, never.wait, lambda: "the first record")
    never.set()


def test_ring_memory_shows_places_in_turn_to_everyone_who_shares_it():
    places = [SyncedMemory(2, host=np.array([i, i], np.float32)) for i in range(3)]
    memory = RingMemory(places)
    blob, view = Blob((2,)), Blob((2, 1))
    blob.use_memory(data=memory)
    view.share_data(blob)
    for place in (0, 1, 2, 0):
        memory.show(place)
        assert blob.data.tolist() == [place, place]
        assert view.data.tolist() == [[place], [place]]


class FakeDevice:
    """A device whose arrays are numpy arrays of its own."""

    def zeros(self, count, dtype):
        return np.zeros(count, dtype)

    def upload(self, host, device):
        device[...] = host

    def download(self, device, host):
        host[...] = device


def test_ring_memory_uploads_each_batch_even_after_work_in_place_on_the_device():
    arrays = [np.zeros(2, np.float32) for _ in range(2)]
    memory, device = RingMemory([SyncedMemory(2, host=array) for array in arrays]), FakeDevice()
    for batch in range(6):
        arrays[batch % 2][...] = batch
        memory.show(batch % 2)
        on_device = memory.mutable_device(device)
        assert on_device.tolist() == [batch, batch]
        on_device += 100
        assert memory.host().tolist() == [batch + 100] * 2
