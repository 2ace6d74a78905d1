"""When a job is started again, and with how many ranks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from paratrain.launch.hosts import Host
from paratrain.launch.job_end import JobEnd
from paratrain.launch.reports import RankProcess, Reports
from paratrain.launch.restarting import Decision, Ranks, RestartRule, SnapshotWatch
from paratrain.snapshot.training_state import TrainingState, sum_file

TRAINING = Reports({0: RankProcess(1, "node1")}, 0)
KILLED = JobEnd(9, reports=TRAINING, rank=1, host="node2", signal=9)
ERROR = JobEnd(1, reports=TRAINING, rank=1, rank_code=1, error="rank 1 of 4 on node1: a bad record")
FOUR = Ranks(4)


def rule(limit: int = 3, ranks: Ranks = FOUR, least: int = 1, possible: tuple[int, ...] = (1, 2, 4)) -> RestartRule:
    return RestartRule(limit, ranks, least, lambda count: None if count in possible else f"{count} do not divide it")


def decide(tried: RestartRule, end: JobEnd, progress: str) -> list[Decision]:
    """The decisions on failures that all end alike; "+" is one that wrote a new snapshot before."""
    return [tried.decide(end, has_progress=mark == "+") for mark in progress]


def other_ranks(end: JobEnd) -> list[JobEnd]:
    return [dataclasses.replace(end, rank=rank, host=None) for rank in range(4)]


def test_restarts_in_a_row_are_counted_and_progress_sets_them_back() -> None:
    tried = rule(limit=2)
    failures = []
    for end, mark in zip(other_ranks(KILLED) * 2, "-+--+---", strict=True):
        found = tried.decide(end, has_progress=mark == "+")
        failures.append((found.failures, found.ranks))
    assert failures == [(1, FOUR), (1, FOUR), (2, FOUR), (3, None), (1, FOUR), (2, FOUR), (3, None), (4, None)]


def test_no_restart_unless_asked_for() -> None:
    assert decide(rule(limit=0), KILLED, "+")[0].ranks is None


def test_errors_that_a_restart_does_not_mend() -> None:
    before = dataclasses.replace(ERROR, reports=Reports({0: RankProcess(1, "node1")}))
    assert "before training" in decide(rule(), before, "-")[0].reason
    never = JobEnd(1, reports=Reports())
    assert "has not started the ranks" in decide(rule(), never, "-")[0].reason
    assert "has not started the ranks" in decide(rule(), dataclasses.replace(never, host="node2"), "-")[0].reason
    assert decide(rule(), dataclasses.replace(never, code=137), "-")[0].ranks == FOUR  # somebody killed mpirun
    first, second = decide(rule(), ERROR, "--")
    assert (first.ranks, second.ranks) == (FOUR, None)
    assert "the same error has come twice" in second.reason
    assert [found.ranks for found in decide(rule(), ERROR, "-+")] == [FOUR, FOUR]  # there was progress between
    tried = rule()
    decide(tried, ERROR, "-")
    assert tried.decide(dataclasses.replace(ERROR, error="another"), has_progress=False).ranks == FOUR


def test_a_rank_that_fails_again_and_again_is_left_out() -> None:
    first, second, third = decide(rule(limit=9), KILLED, "---")
    assert (first.ranks, second.ranks, third.ranks) == (FOUR, Ranks(2), Ranks(1))  # 3 do not divide the batch
    assert "rank 1 has failed twice" in second.reason
    assert [found.ranks for found in decide(rule(least=4), KILLED, "---")] == [FOUR] * 3
    assert [found.ranks for found in decide(rule(), KILLED, "-+-")] == [FOUR, FOUR, Ranks(2)]
    stopped = decide(rule(possible=(4,)), KILLED, "--")[-1]
    assert stopped.ranks is None
    assert "cannot keep the effective batch" in stopped.reason


def test_a_host_that_fails_again_and_again_is_left_out() -> None:
    hosts = (Host("node1", 2), Host("node2", 2))
    ends = [dataclasses.replace(KILLED, rank=rank, host="node2.cluster") for rank in (2, 3)]
    tried = rule(ranks=Ranks(4, hosts))
    decisions = [tried.decide(end, has_progress=False) for end in ends]
    assert decisions[0].ranks == Ranks(4, hosts)
    assert decisions[1].ranks == Ranks(2, hosts[:1])
    tried = rule(ranks=Ranks(4, hosts), least=3)
    assert [tried.decide(end, has_progress=False).ranks for end in ends] == [Ranks(4, hosts), None]
    by_rank = [dataclasses.replace(end, host="a name of its own") for end in ends]
    tried = rule(ranks=Ranks(4, hosts))
    assert [tried.decide(end, has_progress=False).ranks for end in by_rank] == [Ranks(4, hosts), Ranks(2, hosts[:1])]
    unknown = [dataclasses.replace(end, host="a name of its own", rank=None) for end in ends]
    tried = rule(ranks=Ranks(4, hosts))
    assert [tried.decide(end, has_progress=False).ranks for end in unknown] == [Ranks(4, hosts)] * 2


def write_snapshot(folder: Path, iteration: int, text: str = "state") -> Path:
    state = folder / f"net_iter_{iteration}.solverstate"
    state.write_text(text)
    training = TrainingState(iteration, 1, 2, 1, [], files={state.name: sum_file(state)})
    training.write(folder / f"net_iter_{iteration}.trainstate")
    return state


def test_only_snapshots_of_this_run_count(tmp_path: Path) -> None:
    write_snapshot(tmp_path, 10)
    write_snapshot(tmp_path, 900)
    watch = SnapshotWatch(str(tmp_path / "net"))
    assert watch.newest() is None
    assert not watch.has_progress()
    again = write_snapshot(tmp_path, 10, "written again")
    assert watch.newest() == (again, 10)
    assert (watch.has_progress(), watch.has_progress()) == (True, False)
    newer = write_snapshot(tmp_path, 20)
    assert watch.newest() == (newer, 20)
    newer.write_text("spoilt")
    assert watch.newest() == (again, 10)
    assert not watch.has_progress()
    cut = tmp_path / "net_iter_30.trainstate"
    cut.write_text(json.dumps({"format": "paratrain.trainstate"}))
    assert watch.newest() == (again, 10)


@pytest.mark.parametrize("prefix", ["missing/net", "net"])
def test_no_snapshots_at_all(tmp_path: Path, prefix: str) -> None:
    assert SnapshotWatch(str(tmp_path / prefix)).newest() is None
