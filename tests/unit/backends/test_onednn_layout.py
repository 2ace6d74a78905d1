"""Layouts of oneDNN, and moving values between them."""

from __future__ import annotations

import numpy as np
import pytest

from paratrain.backends.onednn import OneDnnBackend
from paratrain.backends.onednn.arranged import ArrangedArray, Copies
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import Library
from paratrain.backends.onednn.names import Algorithm, Argument, PropKind
from paratrain.backends.onednn.primitive import Descriptor
from paratrain.blob import MemorySlice, SyncedMemory
from tests.optional import need_onednn


@pytest.fixture
def backend() -> OneDnnBackend:
    need_onednn()
    return OneDnnBackend()


@pytest.fixture
def library(backend: OneDnnBackend) -> Library:
    return backend.library


def blocked(backend: OneDnnBackend, shape: tuple[int, ...]) -> Layout:
    """The layout that a convolution of many channels chooses."""
    library = backend.library
    bottom = Layout.any(library, shape)
    weights = Layout.any(library, (shape[1], shape[1], 3, 3))
    descriptor = Descriptor(
        backend.engine, "convolution_forward", PropKind.FORWARD_TRAINING, Algorithm.CONVOLUTION_DIRECT,
        bottom, weights, None, bottom, (1, 1), (0, 0), (1, 1), (1, 1),
    )  # fmt: skip
    return descriptor.layout(Argument.SOURCE)


def test_names_and_sizes(library: Library) -> None:
    plain, last = Layout.plain(library, (2, 3, 4, 5)), Layout.channels_last(library, (2, 3, 4, 5))
    assert (plain.name, last.name) == ("abcd", "acdb")
    assert plain.is_plain
    assert not last.is_plain
    assert plain != last
    assert plain.shape == last.shape == (2, 3, 4, 5)
    assert plain.size_bytes == last.size_bytes == 480
    assert Layout.plain(library, (2, 3, 4, 5)) == plain
    assert hash(Layout.plain(library, (2, 3, 4, 5))) == hash(plain)


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 1, 1)])
def test_orders_that_make_no_difference_are_equal(library: Library, shape: tuple[int, ...]) -> None:
    assert Layout.channels_last(library, shape) == Layout.plain(library, shape)
    assert Layout.channels_last(library, shape).is_plain


def test_a_blocked_layout_is_filled_up_with_zeros(backend: OneDnnBackend) -> None:
    width = backend.library.block_width
    layout = blocked(backend, (2, 4 * width, 5, 5))
    assert layout.name == f"aBcd{width}b"
    assert not layout.is_plain
    assert layout.size_bytes == 2 * 4 * width * 25 * 4


def test_values_go_into_a_layout_and_come_back(backend: OneDnnBackend) -> None:
    shape = (2, 64, 5, 5)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    arranger = backend.arranger
    for layout in (Layout.channels_last(backend.library, shape), blocked(backend, shape)):
        arranged, back = ArrangedArray(arranger, layout), np.zeros(values.size, np.float32)
        arranger.reorder(values.reshape(-1), arranger.plain(shape), arranged.array, layout)
        if layout.name == "acdb":
            expected = values.transpose(0, 2, 3, 1).reshape(-1)
            np.testing.assert_array_equal(arranged.array.view(np.float32), expected)
        arranged.write_plain(back)
        np.testing.assert_array_equal(back.reshape(shape), values)
        arranger.reorder(arranged.array, layout, back, arranger.plain(shape), accumulate=True)
        np.testing.assert_array_equal(back.reshape(shape), 2 * values)


def test_a_copy_in_another_layout_lives_until_the_values_change(backend: OneDnnBackend) -> None:
    shape = (1, 32, 3, 3)
    arranger, copies = backend.arranger, Copies(backend.arranger)
    last, blocks = Layout.channels_last(backend.library, shape), blocked(backend, shape)
    memory = SyncedMemory(288)
    memory.mutable_host()[...] = np.arange(288)

    first = copies.read(memory, last)
    assert copies.read(memory, last) is first is Copies(arranger).read(memory, last), "kept with the memory"
    other = copies.read(memory, blocks)
    assert copies.read(memory, blocks) is other
    before = other.copy()
    memory.mutable_host()[...] += 1
    assert not np.array_equal(copies.read(memory, blocks), before)
    np.testing.assert_array_equal(copies.read(memory, arranger.plain(shape)), np.arange(288) + 1)

    part = MemorySlice(memory, 0, 288)
    np.testing.assert_array_equal(
        copies.read(part, last).view(np.float32).reshape(3, 3, 32)[0, 0], np.arange(32) * 9 + 1
    )


def test_what_is_kept_does_not_grow_without_end(backend: OneDnnBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.backends.onednn.arranged._MOST_REORDERS", 20)
    arranger, copies = backend.arranger, Copies(backend.arranger)
    for size in (*range(1, 40), 3):
        shape = (2, 16, size, 3)
        memory = SyncedMemory(96 * size)
        memory.mutable_host()[...] = np.arange(96 * size)
        copies.read(memory, Layout.channels_last(backend.library, shape))
        found = copies.read(memory, blocked(backend, shape)).view(np.float32)
        expected = np.arange(96 * size).reshape(2, 16, -1).transpose(0, 2, 1).reshape(-1)
        np.testing.assert_array_equal(found[: expected.size], expected)
    assert len(arranger._reorders) == len(arranger._plain) == 20
    assert len(copies._made) == 8


def test_memory_written_in_a_layout_reads_right_in_any_shape(backend: OneDnnBackend) -> None:
    shape = (2, 3, 2, 2)
    arranger, memory = backend.arranger, SyncedMemory(24)
    values = np.arange(24, dtype=np.float32)
    array = arranger.write(memory, Layout.channels_last(backend.library, shape))
    array.view(np.float32)[...] = values.reshape(shape).transpose(0, 2, 3, 1).reshape(-1)
    assert arranger.layout_of(memory, shape).name == "acdb"
    assert arranger.layout_of(memory, (2, 12)).is_plain, "another shape of the same values goes through the plain order"
    np.testing.assert_array_equal(memory.host(), values)
