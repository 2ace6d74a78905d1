from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from paratrain.launch.signals import EFFECTS, SignalWatch
from paratrain.solvers import Action


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # handlers run between two steps of the interpreter


@pytest.mark.parametrize(
    ("number", "asked"),
    [
        (signal.SIGINT, Action.STOP),
        (signal.SIGHUP, Action.SNAPSHOT),
        (signal.SIGTERM, Action.SNAPSHOT | Action.STOP),
        (signal.SIGUSR1, Action.SNAPSHOT | Action.STOP),
        (signal.SIGUSR2, Action.SNAPSHOT),
    ],
)
def test_what_signals_ask(number: signal.Signals, asked: Action) -> None:
    with SignalWatch() as watch:
        assert watch() == Action.NONE
        send(number)
        assert watch() == asked
        assert watch() == Action.NONE


def test_effects_can_be_chosen() -> None:
    with SignalWatch(EFFECTS["none"], EFFECTS["stop"]) as watch:
        send(signal.SIGINT)
        assert watch() == Action.NONE
        send(signal.SIGHUP)
        assert watch() == Action.STOP


def test_a_second_sigint_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.launch.signals._SAME_SIGNAL_S", 0.05)
    with SignalWatch() as watch:
        send(signal.SIGINT)
        send(signal.SIGINT)  # one press of the keys, sent twice
        assert watch() == Action.STOP
        time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_signal_that_comes_while_another_is_taken_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with SignalWatch() as watch:

        def info(*_values: object) -> None:
            monkeypatch.undo()
            send(signal.SIGTERM)

        send(signal.SIGHUP)
        monkeypatch.setattr("paratrain.launch.signals.logger.info", info)
        assert watch() == Action.SNAPSHOT
        assert watch() == Action.SNAPSHOT | Action.STOP


def test_sigint_for_snapshots_never_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.launch.signals._SAME_SIGNAL_S", 0.0)
    with SignalWatch(sigint=Action.SNAPSHOT) as watch:
        for _ in range(3):
            send(signal.SIGINT)
        assert watch() == Action.SNAPSHOT


def test_handlers_are_put_back_and_threads_leave_them_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def enter() -> None:
        with SignalWatch():
            assert signal.getsignal(signal.SIGTERM) == before

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    with SignalWatch():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
