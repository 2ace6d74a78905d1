"""The options about ranks that wait."""

from __future__ import annotations

import argparse
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from paratrain.activity import Activity
from paratrain.comm import Communicator, LocalCommunicator
from paratrain.comm.threads import run_threads
from paratrain.errors import DataError
from paratrain.launch.abort import report
from paratrain.launch.stalls import activity_of, add_stalls, start_watching


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_stalls(parser)
    return parser.parse_args(words)


def test_the_limits() -> None:
    default, given = parse(), parse("--stall-warn", "0", "--stall-abort", "2.5")
    assert (default.stall_warn, default.stall_abort) == (60, 1800)
    assert (given.stall_warn, given.stall_abort) == (0, 2.5)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "soon"])
def test_limits_are_numbers_of_seconds(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(f"--stall-warn={value}")
    assert "--stall-warn" in capsys.readouterr().err


def test_one_rank_is_not_watched() -> None:
    communicator = LocalCommunicator()
    start_watching(parse(), communicator, "net")
    assert communicator.watch is None
    activity_of(communicator).enter("data", "mnist")


def test_an_error_of_a_watched_rank_says_where_it_was() -> None:
    def fail(communicator: Communicator) -> str:
        if communicator.rank == 1:
            activity = Activity()
            activity.iteration = 120
            activity.enter("data", "mnist")
            watched: Any = communicator
            watched.watch = SimpleNamespace(activity=activity)
        return report(communicator, DataError("record '7' is not a Datum"))

    host = socket.gethostname()
    assert run_threads(2, fail) == [
        f"paratrain: rank 0 of 2 on {host}: record '7' is not a Datum",
        f"paratrain: rank 1 of 2 on {host}, at iteration 120, data of 'mnist': record '7' is not a Datum",
    ]
