"""What the hub decides, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paratrain.watching.judge import Action, Judge, Kind
from paratrain.watching.settings import WatchSettings
from paratrain.watching.state import ANY, Death, RankState

SETTINGS = WatchSettings(warn_s=60, abort_s=600, lost_s=20)


class Clocked:
    """A judge of two hosts with two ranks each, and a clock of its own."""

    def __init__(self, settings: WatchSettings = SETTINGS) -> None:
        self.now = 1000.0
        self.judge = Judge(4, settings, self.now)
        self.states = [RankState(rank, f"node{rank // 2}", 100 + rank, 7, "forward", "conv1") for rank in range(4)]
        self.silent: set[int] = set()

    def run(self, seconds: float, step_s: float = 0.5) -> list[Action]:
        """Let time pass, in which hosts tell what they told before and ranks that wait go on waiting."""
        actions = []
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            self.states = [
                replace(
                    state,
                    there_s=state.there_s + step_s,
                    waits_s=state.waits_s + step_s if state.waits_for is not None else 0.0,
                    stopped_s=state.stopped_s + step_s if state.stopped_s else 0.0,
                )
                for state in self.states
            ]
            for node in {0, 1} - self.silent:
                self.judge.hear(node, f"node{node}", self.states[2 * node : 2 * node + 2], self.now)
            actions += self.judge.decide(self.now)
        return actions

    def set(self, rank: int, **values: object) -> None:
        self.states[rank] = replace(self.states[rank], **values)  # type: ignore[arg-type]


def kinds(actions: Sequence[Action]) -> list[Kind]:
    return [action.kind for action in actions]


def death(rank: int, cause: str, *, is_killed: bool = False, is_explained: bool = False, traceback: str = "") -> Death:
    state = RankState(rank, f"node{rank // 2}", 100 + rank, 7, "backward", "conv2")
    return Death(state, cause, traceback, is_explained, is_killed)


def test_nothing_is_done_while_all_are_at_work() -> None:
    assert Clocked().run(5000, 10) == []


def test_a_long_wait_is_told_at_the_limit_and_whenever_it_has_doubled() -> None:
    clocked = Clocked()
    for rank in (0, 2, 3):
        clocked.set(rank, waits_for=ANY)
    assert clocked.run(60) == []
    [first] = clocked.run(1)
    assert first.kind is Kind.WARN
    assert "ranks 0, 2 and 3 of 4 have waited 60 s for rank 1 on node0 (process 101): iteration 7" in first.text
    assert clocked.run(58) == []
    assert kinds(clocked.run(2)) == [Kind.WARN]
    assert kinds(clocked.run(121)) == [Kind.WARN]
    for rank in (0, 2, 3):
        clocked.set(rank, waits_for=None)
    assert clocked.run(10) == []
    clocked.set(0, waits_for=ANY)
    assert clocked.run(60) == []
    assert kinds(clocked.run(1)) == [Kind.WARN]


def test_a_stall_ends_with_a_report_and_the_traceback() -> None:
    clocked = Clocked()
    for rank in (0, 2, 3):
        clocked.set(rank, waits_for=ANY)
    actions = [action for action in clocked.run(601) if action.kind is not Kind.WARN]
    assert actions == [Action(Kind.TRACE, ranks=[1])]
    clocked.judge.trace({1: "Traceback\n  in my_layer\n"})
    report, end = clocked.run(2)
    assert report.kind is Kind.REPORT
    assert report.text.startswith("ranks 0, 2 and 3 of 4 have waited 600 s (--stall-abort 600) for rank 1 on node0")
    assert report.text.endswith("\nrank 1:\n  Traceback\n    in my_layer")
    assert end.kind is Kind.END
    assert clocked.judge.is_ended
    assert clocked.run(100) == []


def test_a_stall_ends_without_a_traceback_that_does_not_come() -> None:
    clocked = Clocked()
    clocked.set(0, waits_for=ANY)
    assert kinds(clocked.run(605))[-3:] == [Kind.TRACE, Kind.REPORT, Kind.END]


def test_no_limits_no_end() -> None:
    clocked = Clocked(replace(SETTINGS, warn_s=0, abort_s=0))
    clocked.set(0, waits_for=ANY)
    assert clocked.run(100_000, 5) == []


def test_a_rank_that_moves_is_not_stalled() -> None:
    clocked = Clocked()
    clocked.set(0, waits_for=ANY)
    for _ in range(20):
        assert set(kinds(clocked.run(50, 5))) <= {Kind.WARN}
        for rank in (1, 2, 3):
            clocked.set(rank, there_s=0.0)


def test_a_death_is_reported_then_all_end() -> None:
    clocked = Clocked()
    clocked.run(1)
    clocked.judge.die(death(2, "killed by SIGSEGV", traceback="Fatal Python error\n  File x"), clocked.now)
    report, end = clocked.run(1, 0.05)
    assert report.text == (
        "rank 2 of 4 on node1, at iteration 7, backward of 'conv2': killed by SIGSEGV (process 102)"
        "\n  Fatal Python error\n    File x"
    )
    assert end.kind is Kind.END


def test_of_many_deaths_the_cause_is_told() -> None:
    """The launcher's own kills may be heard of before what they follow from."""
    clocked = Clocked()
    clocked.judge.die(death(0, "killed by SIGKILL", is_killed=True), clocked.now)
    clocked.judge.die(death(3, "ended with exit code 3"), clocked.now)
    clocked.judge.die(death(1, "killed by SIGKILL", is_killed=True), clocked.now)
    assert "rank 3 of 4" in clocked.run(1, 0.05)[0].text
    alike = Clocked()
    for rank in (2, 0, 1):
        alike.judge.die(death(rank, "killed by SIGKILL", is_killed=True), alike.now)
    assert "rank 2 of 4" in alike.run(1, 0.05)[0].text


def test_what_a_rank_has_told_itself_is_not_told_again() -> None:
    clocked = Clocked()
    clocked.judge.die(death(0, "killed by SIGKILL", is_killed=True), clocked.now)
    clocked.judge.die(death(1, "ended with exit code 1", is_explained=True), clocked.now)
    assert kinds(clocked.run(2, 0.05)) == []
    assert kinds(clocked.run(3, 0.05)) == [Kind.END]


def test_a_host_that_is_silent_is_lost() -> None:
    clocked = Clocked()
    clocked.run(3)
    clocked.silent = {1}
    assert clocked.run(20) == []
    report, end = clocked.run(2)
    assert report.text.startswith("ranks 2 and 3 of 4 on node1: the host is lost: nothing was heard from it for 2")
    assert "rank 3 (process 103) was last at iteration 7, forward of 'conv1'" in report.text
    assert end.kind is Kind.END
    assert clocked.judge.has_lost_host


def test_a_host_that_has_told_of_no_rank_is_lost_as_well() -> None:
    clocked = Clocked()
    clocked.judge.hear(1, "node1", [], clocked.now)  # it has come
    clocked.silent = {1}
    assert clocked.run(20) == []
    report, end = clocked.run(2)
    assert report.text.startswith("the ranks on node1: the host is lost: nothing was heard from it for 2")
    assert end.kind is Kind.END


def test_a_host_that_left_is_not_lost() -> None:
    clocked = Clocked()
    clocked.run(3)
    clocked.silent = {1}
    clocked.judge.leave(1)
    assert clocked.run(100) == []


def test_a_hub_that_was_stopped_itself_does_not_take_others_for_lost() -> None:
    clocked = Clocked()
    clocked.run(3)
    clocked.now += 3600
    assert clocked.judge.decide(clocked.now) == []
    assert clocked.run(10) == []


def test_a_rank_that_is_stopped_for_long_ends_the_job_unless_all_are() -> None:
    clocked = Clocked()
    clocked.set(1, stopped_s=0.1)
    report, end = clocked.run(22)
    assert report.text.startswith("rank 1 of 4 on node0, at iteration 7, forward of 'conv1': stopped by a signal")
    assert end.kind is Kind.END
    suspended = Clocked()
    for rank in range(4):
        suspended.set(rank, stopped_s=0.1)
    assert suspended.run(3600, 10) == []
