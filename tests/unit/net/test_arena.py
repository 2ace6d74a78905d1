"""Places in an arena: what lives at the same time lies apart, and the arena is as large as it has to be."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from paratrain.net.arena import Life, largest_need_bytes, place

LIVES = st.lists(
    st.builds(
        lambda size, first, length: Life(size, first, first + length),
        st.integers(1, 5000),
        st.integers(0, 30),
        st.integers(0, 12),
    ),
    max_size=30,
)


@given(LIVES)
def test_lives_that_meet_lie_apart(lives: list[Life]) -> None:
    offsets, size_bytes = place(lives)
    assert size_bytes >= largest_need_bytes(lives)
    assert size_bytes <= sum(life.size_bytes + 63 for life in lives)
    for life, offset in zip(lives, offsets, strict=True):
        assert offset % 64 == 0 and 0 <= offset <= size_bytes - life.size_bytes
    for (one, start), (other, begin) in itertools.combinations(zip(lives, offsets, strict=True), 2):
        moments = set(range(one.first, one.last + 1)) & set(range(other.first, other.last + 1))
        assert not moments or start + one.size_bytes <= begin or begin + other.size_bytes <= start


@given(LIVES)
def test_the_largest_need_is_that_of_some_moment(lives: list[Life]) -> None:
    by_moment = [sum(life.size_bytes for life in lives if life.first <= moment <= life.last) for moment in range(50)]
    assert largest_need_bytes(lives) == max(by_moment)


def test_a_chain_takes_two_places() -> None:
    """Each is needed by the next alone."""
    lives = [Life(640, moment, moment + 1) for moment in range(10)]
    offsets, size_bytes = place(lives)
    assert size_bytes == 1280 and offsets == [0, 640] * 5


def test_the_smallest_gap_that_will_do_is_filled() -> None:
    lives = [Life(512, 0, 0), Life(448, 0, 9), Life(384, 0, 0), Life(320, 0, 9), Life(192, 5, 5)]
    offsets, size_bytes = place(lives)
    assert offsets == [0, 512, 960, 1344, 960] and size_bytes == 1664


def test_nothing_takes_nothing() -> None:
    assert place([]) == ([], 0) and largest_need_bytes([]) == 0
