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
from paratrain.data.prefetch import RingMemory
from tests.paths import REPOSITORY


def ring(count):
    return [(np.zeros(3), np.zeros(1)) for _ in range(count)]


def fill_number(batch, data, label):
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
def fill(batch, array):
    time.sleep(0.01)
    array[...] = batch
prefetcher = Prefetcher(fill, slots, lambda: print("freed"))
prefetcher.get()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, timeout=30, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("freed\n", "")


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
