from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from paratrain.data.kept import Kept


def test_a_result_is_worked_out_once_whoever_asks() -> None:
    made: list[tuple[int, int]] = []
    may_go_on = threading.Event()

    def make(first: int, second: int) -> int:
        made.append((first, second))
        assert may_go_on.wait(20)
        return 10 * first + second

    kept = Kept(make, 2, "test-kept")
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(kept, 1, 2) for _ in range(4)]
        while not made:
            pass
        may_go_on.set()
        assert [future.result(20) for future in asked] == [12] * 4
    assert made == [(1, 2)]


def test_the_last_used_are_kept() -> None:
    made: list[int] = []
    kept = Kept(lambda first, _: made.append(first), 2, "test-kept")
    for first in (1, 2, 1, 3, 1, 2):
        kept(first)
    assert made == [1, 2, 3, 2], "2 had not been used for longest when 3 came"
    assert [kept.has(first) for first in (1, 2, 3)] == [True, True, False]
    kept.close()
    assert not kept.has(1)


def test_what_is_made_ahead_is_there_and_its_failure_is_told_to_who_asks() -> None:
    names: list[str] = []

    def make(first: int, _: int) -> int:
        names.append(threading.current_thread().name)
        if first == 0:
            raise ZeroDivisionError("nothing")
        return 1 // first

    kept = Kept(make, 2, "test-kept")
    for first in (1, 0):
        kept.make_ahead(first)
        for thread in threading.enumerate():
            if thread.name == "test-kept":
                thread.join()
    kept.make_ahead(1)
    assert kept(1) == 1
    assert names == ["test-kept"] * 2
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="nothing"):
            kept(0)
    kept.close()


def test_closing_waits_for_every_thread() -> None:
    may_go_on = threading.Event()
    kept = Kept(lambda first, _: may_go_on.wait(20) and first, 4, "test-kept")
    for first in range(3):
        kept.make_ahead(first)
    threading.Timer(0.05, may_go_on.set).start()
    kept.close()
    assert "test-kept" not in [thread.name for thread in threading.enumerate()]
