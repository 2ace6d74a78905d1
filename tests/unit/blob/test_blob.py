"""Blob: shapes, memory kept over reshapes, sharing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.blob import Blob
from paratrain.blob.limits import LARGEST_COUNT
from paratrain.errors import ShapeMismatchError


def test_a_blob_of_no_axes_holds_one_value() -> None:
    blob = Blob(())
    assert blob.count == 1
    assert blob.data.shape == ()


def test_shrinking_keeps_the_memory_and_growing_takes_new() -> None:
    blob = Blob((4, 5))
    blob.data[...] = 1
    memory = blob.data_memory
    blob.reshape(2, 3)
    assert blob.data_memory is memory
    assert blob.data.shape == (2, 3)
    blob.reshape(5, 5)
    assert blob.data_memory is not memory
    np.testing.assert_array_equal(blob.data, 0)


@given(st.lists(st.integers(0, 4), max_size=5))
def test_counts(shape: list[int]) -> None:
    blob = Blob(shape)
    assert blob.count == int(np.prod(shape))
    for middle in range(len(shape) + 1):
        assert blob.count_between(0, middle) * blob.count_between(middle) == blob.count


def test_axes_count_from_both_ends() -> None:
    blob = Blob((2, 3, 4))
    assert [blob.canonical_axis(axis) for axis in (0, 2, -1, -3)] == [0, 2, 2, 0]
    with pytest.raises(ShapeMismatchError, match="axis 3 does not exist: the blob has 3 axes"):
        blob.canonical_axis(3)


def test_legacy_names_count_missing_axes_as_one() -> None:
    blob = Blob((2, 3))
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 1, 1)
    with pytest.raises(ShapeMismatchError, match="at most 4 axes"):
        _ = Blob((1, 2, 3, 4, 5)).num


def test_a_negative_axis_is_refused() -> None:
    with pytest.raises(ShapeMismatchError, match="an axis is negative"):
        Blob((2, -1))


def test_sharing_is_one_memory_under_two_shapes() -> None:
    owner, user = Blob((2, 3)), Blob((6,))
    user.share_data(owner)
    user.share_diff(owner)
    owner.data[...] = 5
    user.diff[...] = 2
    np.testing.assert_array_equal(user.data, np.full(6, 5))
    np.testing.assert_array_equal(owner.diff, np.full((2, 3), 2))


def test_memory_is_taken_only_when_touched() -> None:
    blob = Blob((LARGEST_COUNT,), np.float64)  # 16 GiB
    assert blob.count == LARGEST_COUNT


def test_more_values_than_caffe_allows_are_refused() -> None:
    with pytest.raises(
        ShapeMismatchError, match=r"\(1099511627776,\) would have 1,099,511,627,776 values; .* 2,147,483,647"
    ):
        Blob((1 << 40,))
