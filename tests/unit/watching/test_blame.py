"""Who is said to be waited for, from where all ranks are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paratrain.watching.blame import find_stall
from paratrain.watching.state import ANY, RankState, name_ranks


def at_work(
    rank: int, iteration: int = 5, phase: str = "forward", name: str = "conv1", there_s: float = 61.0
) -> RankState:
    return RankState(rank, "node7", 100 + rank, iteration, phase, name, there_s=there_s)


def waiting(rank: int, waits_s: float = 60.0, iteration: int = 5, waits_for: int = ANY) -> RankState:
    return RankState(
        rank, "node7", 100 + rank, iteration, "exchange", "gradients",
        there_s=waits_s, waits_for=waits_for, waits_s=waits_s,
    )  # fmt: skip


def test_the_one_that_does_not_wait_is_named_with_its_place() -> None:
    stall = find_stall([waiting(0), waiting(1, 50), at_work(2, phase="data", name="mnist")], 40)
    assert stall is not None
    assert stall.describe(3) == (
        "ranks 0 and 1 of 3 have waited 60 s for rank 2 on node7 (process 102): iteration 5, data of 'mnist', for 61 s"
    )
    assert (stall.waited_s, stall.unmoved_s) == (60, 60)


def test_a_short_wait_is_none() -> None:
    assert find_stall([waiting(0, 10), at_work(1)], 10) is None
    assert find_stall([at_work(0), at_work(1)], 0) is None


def test_of_those_at_work_the_ones_furthest_behind_are_named() -> None:
    stall = find_stall([waiting(0), at_work(1, iteration=6), at_work(2), at_work(3)], 10)
    assert stall is not None
    assert [state.rank for state in stall.culprits] == [2, 3]
    text = stall.describe(4)
    assert text.startswith("rank 0 of 4 has waited 60 s for rank 2 on")
    assert "; for rank 3 on" in text
    assert "rank 1" not in text


def test_where_all_wait_those_furthest_behind_are_named_and_for_whom_they_wait() -> None:
    stall = find_stall([waiting(0, iteration=6), waiting(1, waits_for=2), waiting(2, waits_for=1)], 10)
    assert stall is not None
    text = stall.describe(3)
    assert "ranks 0 to 2 of 3 have waited 60 s, and no rank is at work" in text
    assert "rank 1 on node7 (process 101), which waits for rank 2: iteration 5, exchange of 'gradients'" in text
    assert "which waits for rank 1" in text
    assert "rank 0 on" not in text


def test_one_that_moves_is_waited_for_but_not_stuck() -> None:
    stall = find_stall([waiting(0, 60), at_work(1, there_s=0.5)], 10)
    assert stall is not None
    assert stall.unmoved_s == 0.5


def test_ranks_that_have_left_are_not_waited_for() -> None:
    left = RankState(1, "node7", 101, 5, "ending", is_done=True)
    stall = find_stall([waiting(0), left, waiting(2)], 10)
    assert stall is not None
    assert [state.rank for state in stall.culprits] == [0, 2]
    assert find_stall([left], 0) is None


@given(st.sets(st.integers(0, 40), min_size=1))
def test_ranks_are_named_so_that_they_can_be_read_back(ranks: set[int]) -> None:
    words = name_ranks(sorted(ranks)).split(" ", 1)[1].replace(" and ", ", ").split(", ")
    read: set[int] = set()
    for word in words:
        first, _, last = word.partition(" to ")
        read.update(range(int(first), int(last or first) + 1))
    assert read == ranks
