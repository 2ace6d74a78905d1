"""Memory that is copied between host and device only when somebody asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.blob import Blob, Head, MemorySlice, SyncedMemory


class CountingDevice:
    """A device whose arrays are numpy arrays of its own; it counts the copies."""

    def __init__(self) -> None:
        self.uploads = 0
        self.downloads = 0

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Any:
        return np.zeros(count, dtype)

    def upload(self, host: npt.NDArray[Any], device: Any) -> None:
        self.uploads += 1
        device[...] = host

    def download(self, device: Any, host: npt.NDArray[Any]) -> None:
        self.downloads += 1
        host[...] = device


def test_states_follow_who_reads_and_writes() -> None:
    device, memory = CountingDevice(), SyncedMemory(3)
    assert memory.head is Head.UNINITIALIZED
    memory.mutable_host()[...] = 1
    assert memory.head is Head.AT_CPU
    np.testing.assert_array_equal(memory.device(device), 1)
    assert memory.head is Head.SYNCED
    memory.mutable_device(device)[...] = 2
    assert memory.head is Head.AT_GPU
    np.testing.assert_array_equal(memory.host(), 2)
    assert memory.head is Head.SYNCED
    assert (device.uploads, device.downloads) == (1, 1)


def test_what_is_synced_is_not_copied_again() -> None:
    device, memory = CountingDevice(), SyncedMemory(3)
    memory.mutable_host()[...] = 1
    for _ in range(3):
        memory.device(device)
        memory.host()
    assert (device.uploads, device.downloads) == (1, 0)


def test_untouched_memory_is_zero_on_either_side_without_a_copy() -> None:
    device = CountingDevice()
    np.testing.assert_array_equal(SyncedMemory(2).host(), 0)
    np.testing.assert_array_equal(SyncedMemory(2).device(device), 0)
    assert (device.uploads, device.downloads) == (0, 0)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(-9, 9)), max_size=20))
def test_any_order_of_reads_and_writes_sees_the_last_value(steps: list[tuple[bool, bool, int]]) -> None:
    device, memory, expected = CountingDevice(), SyncedMemory(2), 0
    for on_device, writes, value in steps:
        if writes:
            (memory.mutable_device(device) if on_device else memory.mutable_host())[...] = value
            expected = value
        else:
            np.testing.assert_array_equal(memory.device(device) if on_device else memory.host(), expected)
    np.testing.assert_array_equal(memory.host(), expected)


def test_slices_share_the_state_of_the_whole() -> None:
    device, memory = CountingDevice(), SyncedMemory(6)
    first, second = MemorySlice(memory, 0, 2), MemorySlice(memory, 2, 6)
    first.mutable_device(device)[...] = 1
    second.mutable_device(device)[...] = 2
    np.testing.assert_array_equal(memory.host(), [1, 1, 2, 2, 2, 2])
    assert second.count == 4
    assert device.downloads == 1


def test_a_blob_reads_where_its_values_are() -> None:
    device, blob = CountingDevice(), Blob((2, 3))
    blob.data[...] = 7
    np.testing.assert_array_equal(blob.read_data(device), np.full((2, 3), 7))
    blob.write_diff(device)[...] = 3
    np.testing.assert_array_equal(blob.diff, np.full((2, 3), 3))
    assert (device.uploads, device.downloads) == (1, 1)


def test_memory_of_somebody_else_is_used_in_place() -> None:
    window = np.arange(4, dtype=np.float32)
    memory = SyncedMemory(4, host=window)
    memory.mutable_host()[0] = 9
    assert window[0] == 9
    with pytest.raises(AssertionError):
        SyncedMemory(5, host=window)


class Reversed:
    """An arrangement that keeps values in the opposite order; it counts how often they are asked for in plain order."""

    def __init__(self, values: npt.ArrayLike) -> None:
        self.values = np.asarray(values, np.float32)
        self.conversions = 0

    def write_plain(self, host: npt.NDArray[Any]) -> None:
        self.conversions += 1
        host[: len(self.values)] = self.values[::-1]


class ReversedOnDevice(Reversed):
    """The same on a device."""

    def write_device(self, device_array: Any) -> None:
        self.write_plain(device_array)


@given(st.lists(st.tuples(st.sampled_from(["host", "device", "overwritten", "arranged"]), st.booleans()), max_size=20))
def test_any_order_of_three_places_sees_the_last_values(steps: list[tuple[str, bool]]) -> None:
    device, memory, expected = CountingDevice(), SyncedMemory(2), [0, 0]
    for number, (place, writes) in enumerate(steps, start=1):
        if writes:
            expected = [number, -number]
            if place == "arranged":
                memory.arrange(ReversedOnDevice(expected[::-1]))
            elif place == "host":
                memory.mutable_host()[...] = expected
            else:
                write = memory.mutable_device if place == "device" else memory.overwritten_device
                write(device)[...] = expected
        elif place == "arranged" and any(memory.places):
            memory.device(device)
            memory.add_arrangement(ReversedOnDevice(expected[::-1]))
        else:
            np.testing.assert_array_equal(memory.host() if place == "host" else memory.device(device), expected)
    np.testing.assert_array_equal(memory.host(), expected)
    np.testing.assert_array_equal(memory.device(device), expected)


def test_who_overwrites_brings_nothing_to_the_device() -> None:
    device, memory = CountingDevice(), SyncedMemory(2)
    memory.mutable_host()[...] = 1
    memory.overwritten_device(device)[...] = 2
    assert device.uploads == 0
    assert memory.head is Head.AT_GPU
    np.testing.assert_array_equal(memory.host(), 2)


def test_a_recorded_pass_says_where_it_has_written() -> None:
    device, memory = CountingDevice(), SyncedMemory(2)
    array, before = memory.mutable_device(device), memory.version
    places = memory.places
    np.testing.assert_array_equal(memory.host(), 0)
    array[...] = 3  # as a recording does, which asks nobody
    memory.note_places(places)
    assert memory.version > before
    np.testing.assert_array_equal(memory.host(), 3)


def test_arranged_values_are_put_in_plain_order_once_and_only_when_asked_for() -> None:
    memory, arrangement = SyncedMemory(3), Reversed([3, 2, 1])
    memory.arrange(arrangement)
    assert memory.head is Head.ARRANGED
    assert memory.arrangement is arrangement
    assert arrangement.conversions == 0
    for _ in range(3):
        np.testing.assert_array_equal(memory.host(), [1, 2, 3])
    assert arrangement.conversions == 1
    assert memory.head is Head.SYNCED
    assert memory.arrangement is arrangement, "reading changes nothing"


def test_writing_plain_values_puts_an_arrangement_out_of_date() -> None:
    memory, arrangement = SyncedMemory(3), Reversed([3, 2, 1])
    memory.arrange(arrangement)
    before = memory.version
    memory.mutable_host()[0] = 7
    assert memory.version > before
    assert memory.arrangement is None
    np.testing.assert_array_equal(memory.host(), [7, 2, 3])
    memory.arrange(memory.kept_arrangement)  # its buffer may be written anew
    np.testing.assert_array_equal(memory.host(), [1, 2, 3])


def test_an_arrangement_beside_the_plain_values() -> None:
    memory = SyncedMemory(2)
    memory.mutable_host()[...] = [1, 2]
    arrangement = Reversed([2, 1])
    memory.add_arrangement(arrangement)
    assert memory.arrangement is arrangement
    np.testing.assert_array_equal(memory.host(), [1, 2])
    assert arrangement.conversions == 0


def test_arranged_values_may_be_fewer_than_the_memory_holds() -> None:
    memory = SyncedMemory(4)
    memory.mutable_host()[...] = 9
    memory.arrange(Reversed([2, 1]))
    np.testing.assert_array_equal(memory.host(), [1, 2, 9, 9])


def test_settled_memory_may_be_written_through_an_array_held_for_long() -> None:
    memory = SyncedMemory(2)
    memory.arrange(Reversed([2, 1]))
    memory.settle()
    assert memory.head is Head.ARRANGED, "nobody has asked for a plain array"
    held = memory.host()
    memory.arrange(Reversed([4, 3]))
    memory.settle()
    np.testing.assert_array_equal(held, [3, 4])
    assert memory.arrangement is None


def test_slices_of_arranged_memory_are_plain() -> None:
    memory = SyncedMemory(3)
    part = MemorySlice(memory, 1, 3)
    memory.arrange(Reversed([3, 2, 1]))
    np.testing.assert_array_equal(part.host(), [2, 3])
    assert part.arrangement is None
    part.mutable_host()[...] = 0
    np.testing.assert_array_equal(memory.host(), [1, 0, 0])


def test_plain_arrays_begin_at_a_cache_line() -> None:
    assert all(SyncedMemory(count).host().ctypes.data % 64 == 0 for count in (1, 7, 1000, 100_000))
