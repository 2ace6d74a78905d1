"""Work in threads comes in order, a bounded way ahead, and ends when nobody wants it any more."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from paratrain.tools.work import Work, ordered_map


@pytest.mark.parametrize("thread_count", [1, 2, 5])
def test_results_come_in_order(thread_count):
    def slow_when_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number * number

    assert list(ordered_map(slow_when_even, range(60), thread_count)) == [number * number for number in range(60)]


def test_items_are_taken_a_bounded_way_ahead():
    taken = []
    results = ordered_map(lambda number: number, (taken.append(number) or number for number in range(1000)), 2)
    with contextlib.closing(results):
        for _ in range(5):
            next(results)
        assert len(taken) < 30


@pytest.mark.parametrize("thread_count", [1, 3])
def test_an_error_comes_in_its_place_and_no_thread_stays(thread_count):
    def fail_at_7(number: int) -> int:
        if number == 7:
            raise ValueError("seven")
        return number

    results, found = ordered_map(fail_at_7, range(100), thread_count), []
    with pytest.raises(ValueError, match="seven"), contextlib.closing(results):
        found.extend(results)  # extend keeps what came before the error
    assert found == list(range(7))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("paratrain-tool")]


def test_what_is_not_wanted_any_more_is_dropped():
    started = []

    def note(number: int) -> None:
        started.append(number)
        time.sleep(0.01)

    results = ordered_map(note, range(1000), 2)
    with contextlib.closing(results):
        next(results)
    assert len(started) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("paratrain-tool")]


def test_the_log_has_caffes_lines(caplog):
    with caplog.at_level("INFO"), Work(None, "images", log_every=1000) as work:
        for _ in range(2500):
            work.advance()
    assert caplog.messages == [f"Processed {count} files." for count in (1000, 2000, 2500)]
    assert work.speed().startswith("2,500 images in ")
