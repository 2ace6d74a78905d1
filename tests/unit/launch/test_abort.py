"""The parts of launch.abort that need no processes; the rest is in tests/parallel/test_ranks.py."""

from __future__ import annotations

import sys

import pytest

from paratrain.comm import Communicator, LocalCommunicator
from paratrain.comm.threads import run_threads
from paratrain.errors import DataError, NetError
from paratrain.launch.abort import agree, agreed, fail, guard, install_excepthook, report


def codes_of_agree(errors: list[BaseException | None]) -> list[object]:
    """The exit code of each rank, "goes on" where agree returns."""

    def end_set_up(communicator: Communicator) -> object:
        try:
            agree(communicator, errors[communicator.rank])
        except SystemExit as leaving:
            return leaving.code
        return "goes on"

    return run_threads(len(errors), end_set_up)


def test_a_set_up_without_errors_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert codes_of_agree([None] * 3) == ["goes on"] * 3
    assert capsys.readouterr().err == ""


def test_one_message_for_what_all_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert codes_of_agree([NetError("bottom 'x' is not made") for _ in range(4)]) == [1] * 4
    assert capsys.readouterr().err == "paratrain: bottom 'x' is not made\n"


def test_each_different_message_once_with_its_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    assert codes_of_agree([None, DataError("no file a"), DataError("no file b"), DataError("no file a")]) == [1] * 4
    lines = sorted(capsys.readouterr().err.splitlines())
    assert lines[1] == "paratrain: ranks 1, 3 of 4: no file a"
    assert lines[0].startswith("paratrain: rank 2 of 4 on ")
    assert lines[0].endswith(": no file b")


def test_a_bug_in_the_set_up_comes_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(IndexError) as caught:
        raise IndexError("a bug")
    assert codes_of_agree([caught.value]) == [1]
    assert "Traceback" in capsys.readouterr().err


def test_an_exit_in_the_set_up_ends_all_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    def set_up(communicator: Communicator) -> object:
        try:
            return agreed(communicator, lambda: sys.exit(0) if communicator.rank == 1 else "made")
        except SystemExit as leaving:
            return leaving.code

    assert run_threads(3, set_up) == [1] * 3
    text = capsys.readouterr().err
    assert text.startswith("paratrain: rank 1 of 3 on ")
    assert "SystemExit: 0\nTraceback" in text


def test_guard_of_one_rank_reports_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving, guard(LocalCommunicator()):
        raise DataError("the database is empty")
    assert leaving.value.code == 1
    assert capsys.readouterr().err == "paratrain: the database is empty\n"


def test_guard_of_one_rank_shows_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), guard(LocalCommunicator()):
        raise KeyError("a bug")
    text = capsys.readouterr().err
    assert text.startswith("paratrain: KeyError: 'a bug'\nTraceback (most recent call last)")
    assert "test_abort.py" in text


def test_guard_lets_a_good_end_and_an_exit_through(capsys: pytest.CaptureFixture[str]) -> None:
    with guard(LocalCommunicator()):
        pass
    for code in (None, 0, 3):
        with pytest.raises(SystemExit) as leaving, guard(LocalCommunicator()):
            raise SystemExit(code)
        assert leaving.value.code == code
    assert capsys.readouterr().err == ""


def test_an_interrupt_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        fail(LocalCommunicator(), KeyboardInterrupt())
    assert leaving.value.code == 130
    assert capsys.readouterr().err == "paratrain: interrupted\n"


def test_the_report_names_the_rank() -> None:
    texts = run_threads(3, lambda communicator: report(communicator, DataError("x")))
    assert texts[2].startswith("paratrain: rank 2 of 3 on ")
    assert texts[2].endswith(": x")


def test_hooks_are_for_several_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import threading

    before = sys.excepthook, threading.excepthook, sys.exit
    install_excepthook(LocalCommunicator())
    assert (sys.excepthook, threading.excepthook, sys.exit) == before
