from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from paratrain.random import generator, hash_key, permutation, uniform_at, uniform_double_at, uniform_rows

MASK = 2**64 - 1


def split_mix(key: int, index: int) -> float:
    """The upper 24 bits of SplitMix64 as a fraction."""
    return (split_mix_64(key, index) >> 40) / 2**24


def split_mix_64(key: int, index: int) -> int:
    """SplitMix64 in Python's integers."""
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@pytest.mark.parametrize("key", [0, 1, 12345678901234567890, MASK])
def test_uniform_at_is_split_mix(key: int) -> None:
    index = np.array([0, 1, 2, 1000, 2**40, 2**63], np.uint64)
    expected = [split_mix(key, int(i)) for i in index]
    assert uniform_at(key, index).tolist() == expected


def test_uniform_at_does_not_depend_on_order_or_shape() -> None:
    index = np.arange(24, dtype=np.uint64)
    whole = uniform_at(7, index)
    assert whole.dtype == np.float32
    assert np.array_equal(uniform_at(7, index[::-1])[::-1], whole)
    assert np.array_equal(uniform_at(7, index.reshape(2, 3, 4)).reshape(-1), whole)
    assert np.array_equal(uniform_at(7, index[5:9]), whole[5:9])


@pytest.mark.parametrize("rows", [range(5), range(2, 17, 3), range(4, 5), range(0)])
@pytest.mark.parametrize("inner", [0, 1, 7, 20_000, 40_000])
def test_whole_rows_have_the_numbers_of_their_elements(rows: range, inner: int) -> None:
    element = np.array(rows, np.uint64)[:, None] * np.uint64(inner) + np.arange(inner, dtype=np.uint64)
    found = np.full((len(rows), inner), -1, np.float32)
    uniform_rows(99, rows, inner, found)
    np.testing.assert_array_equal(found, uniform_at(99, element))


def test_uniform_at_is_uniform_and_uncorrelated() -> None:
    index = np.arange(200_000, dtype=np.uint64)
    first, second = (uniform_at(hash_key(1, "dropout", name, 0, 0), index).astype(np.float64) for name in ("a", "b"))
    for values in (first, second):
        assert values.min() >= 0
        assert values.max() < 1
        counts = np.histogram(values, bins=50, range=(0, 1))[0]
        chi_square = ((counts - 4000) ** 2 / 4000).sum()
        assert chi_square < 100  # 49 degrees of freedom: above 100 once in 50,000 keys
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.01


def test_hash_key_depends_on_every_part_and_their_order() -> None:
    keys = [(0, "a", 1), (1, "a", 0), (0, "a", 2), (0, "b", 1), (0, "a1"), (0, "a", "1"), ("a", 0, 1)]
    hashed = [hash_key(*key) for key in keys]
    assert len(set(hashed)) == len(keys)
    assert all(0 <= value <= MASK for value in hashed)


def test_hash_key_is_the_same_in_another_process() -> None:
    program = "from paratrain.random import hash_key; print(hash_key(3, 'conv1', 0))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(shown) == hash_key(3, "conv1", 0)


def test_generator_repeats_by_key() -> None:
    assert np.array_equal(generator(1, "filler", "a", 0).random(5), generator(1, "filler", "a", 0).random(5))
    assert not np.array_equal(generator(1, "filler", "a", 0).random(5), generator(1, "filler", "a", 1).random(5))


def test_uniform_double_at_joins_two_draws() -> None:
    index = np.array([0, 1, 2, 1000, 2**40], np.uint64)
    expected = [split_mix(7, 2 * int(i)) + split_mix(7, 2 * int(i) + 1) / 2**24 for i in index]
    assert uniform_double_at(7, index).tolist() == expected
    many = uniform_double_at(7, np.arange(100_000, dtype=np.uint64))
    assert len(np.unique(many)) == len(many), "uniform_at has some 300 twice"
    assert many.min() >= 0 and many.max() < 1
    assert abs(many.mean() - 0.5) < 0.005


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 65, 3000])
def test_a_permutation_sorts_by_random_numbers(count: int) -> None:
    """By their highest bits, as many as are left over; the lowest hold the element's number."""
    bits = max(count - 1, 0).bit_length()
    expected = sorted(range(count), key=lambda i: (split_mix_64(7, i) >> bits, i))
    assert permutation(7, count).tolist() == expected
    assert sorted(expected) == list(range(count))
