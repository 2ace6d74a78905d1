"""Gradients that are cleared without writing zeros: everybody sees zeros, but for who has said to write all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import GradientMemory, GradientSlice, SyncedMemory

Array = npt.NDArray[Any]


def make() -> tuple[SyncedMemory, GradientMemory, GradientSlice, GradientSlice]:
    """A block of 2 + 3 values, all 7, cleared."""
    block = SyncedMemory(5)
    memory = GradientMemory(block)
    first, second = memory.slice(0, 2), memory.slice(2, 5)
    memory.mutable_host()[...] = 7
    memory.clear()
    return block, memory, first, second


def test_whoever_asks_finds_zeros_in_the_part_he_asks_for() -> None:
    block, memory, first, second = make()
    assert block.host().tolist() == [7] * 5, "clearing writes nothing"
    second.mutable_host()[...] += 1
    assert block.host().tolist() == [7, 7, 1, 1, 1]
    assert second.host().tolist() == [1, 1, 1], "cleared once only"
    assert first.host().tolist() == [0, 0]
    memory.clear()
    assert memory.host().tolist() == [0] * 5


def test_a_claimed_part_is_left_to_who_claims_it() -> None:
    block, memory, first, second = make()
    assert first.claim() and not first.claim(), "the second must add"
    assert first.mutable_host().tolist() == [7, 7]
    first.mutable_host()[...] = 3
    assert memory.mutable_host().tolist() == [3, 3, 0, 0, 0]
    assert not second.claim(), "somebody has seen it since"
    assert block.host() is memory.host()


def test_a_range_is_settled_for_those_who_hold_an_array() -> None:
    block, memory, first, second = make()
    memory.settle(0, 2)
    assert block.host().tolist() == [0, 0, 7, 7, 7]
    assert not first.is_cleared and second.is_cleared
    memory.settle(3, 4)
    assert block.host().tolist() == [0] * 5


class _Device:
    """Arrays of numpy that play those of a device, and the count of their copies."""

    def __init__(self) -> None:
        self.copies = 0

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Array:
        return np.zeros(count, dtype)

    def upload(self, host: Array, device: Array) -> None:
        self.copies += 1
        device[...] = host

    def download(self, device: Array, host: Array) -> None:
        self.copies += 1
        host[...] = device


def test_zeros_are_written_where_they_are_asked_for() -> None:
    _, memory, first, _ = make()
    device = _Device()
    assert first.device(device).tolist() == [0, 0]
    assert memory.device(device).tolist() == [0] * 5
    memory.mutable_device(device)[...] = 2
    memory.clear()
    assert first.mutable_device(device).tolist() == [0, 0]
    assert device.copies == 1, "the first one brought the 7s"
    assert memory.host().tolist() == [0] * 5
