"""The timeline: what ranks note, on one clock, in the format that viewers read."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paratrain.activity import Activity
from paratrain.comm import Communicator, LocalCommunicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.data_parallel.timeline import Timeline, check_timeline_path
from paratrain.data_parallel.timeline.clocks import Alignment, ClockReading, name_clock, read_clocks
from paratrain.data_parallel.timeline.recorder import PAUSE, Recorder
from paratrain.errors import ParatrainError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 8 dim: 20 } shape { dim: 8 }
  data_filler { type: "gaussian" std: 1 } data_filler { value: 1 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "ip1" inner_product_param { num_output: 300
  weight_filler { type: "xavier" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "y" top: "loss" }
"""
SETTINGS = (
    'type: "SGD" momentum: 0.9 base_lr: 0.01 lr_policy: "fixed" random_seed: 3 snapshot_after_train: false max_iter: 4'
)
Event = dict[str, Any]


def make(communicator: Communicator, exchange: str = "tree", settings: str = "") -> Solver:
    parameter = parse_prototxt(f"{SETTINGS} {settings} net_param {{ {NET} }}", SolverParameter)
    return create_parallel_solver(parameter, communicator, exchange=exchange)


def run(path: Path, size: int, train: Callable[[Solver], object], **options: Any) -> dict[str, Any]:
    """Write the timeline of ``train``, and read it."""
    solver_options = {name: options.pop(name) for name in ("exchange", "settings") if name in options}
    nodes = options.pop("nodes", [0] * size)

    def main(communicator: Communicator) -> None:
        solver = make(communicator, **solver_options)
        timeline = Timeline(solver, communicator, **options)
        train(solver)
        timeline.write(path)
        communicator.barrier()
        solver.close()

    if size == 1:
        main(LocalCommunicator())
    else:
        run_threads(size, main, nodes)
    return read(path)


def read(path: Path) -> dict[str, Any]:
    """The file, whose form has been checked: on every thread, events follow one another or lie in one another."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        found: dict[str, Any] = json.load(stream)
    assert set(found) == {"displayTimeUnit", "otherData", "traceEvents"}
    tracks: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in found["traceEvents"]:
        assert event["ph"] in "MX"
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert event["ts"] >= 0
            assert event["name"]
            assert event["cat"]
            tracks[event["pid"], event["tid"]].append(event)
    for events in tracks.values():
        around: list[float] = []
        for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
            end = event["ts"] + event["dur"]
            while around and around[-1] <= event["ts"] + 1e-4:
                around.pop()
            assert not around or end <= around[-1] + 1e-4
            around.append(end)
    named = {(event["pid"], event["tid"]) for event in found["traceEvents"] if event["name"] == "thread_name"}
    assert set(tracks) <= named
    return found


def on_track(found: dict[str, Any], rank: int, thread: str = "main") -> list[Event]:
    """The events of a thread, in the order of time."""
    [tid] = [
        event["tid"]
        for event in found["traceEvents"]
        if event["name"] == "thread_name" and event["pid"] == rank and event["args"]["name"] == thread
    ]
    events = [event for event in found["traceEvents"] if (event["pid"], event["tid"], event["ph"]) == (rank, tid, "X")]
    return sorted(events, key=lambda event: (event["ts"], -event["dur"]))


def iterations(events: list[Event]) -> list[tuple[Event, list[Event]]]:
    """Each iteration and what lies in it."""
    return [
        (around, [event for event in events if event is not around and lies_in(event, around)])
        for around in events
        if around["name"].startswith("iteration ")
    ]


def lies_in(event: Event, around: Event) -> bool:
    """Times have steps of a nanosecond, and are floating-point numbers of microseconds."""
    starts = around["ts"] - 1e-4 <= event["ts"]
    return starts and event["ts"] + event["dur"] <= around["ts"] + around["dur"] + 1e-4 and event["cat"] != "iteration"


def test_one_rank_is_shown_layer_by_layer(tmp_path: Path) -> None:
    found = run(tmp_path / "timeline.json", 1, lambda solver: solver.step(3))
    main = on_track(found, 0)
    steps = iterations(main)
    assert [around["args"] for around, _ in steps] == [{"iteration": number} for number in range(3)]
    order = ["clear gradients", "exchange parameters", "data x", "forward ip1", "forward ip2", "forward loss", "backward loss",
             "backward ip2", "backward ip1", "exchange gradients", "update", "exchange parameters"]  # fmt: skip
    for around, within in steps:
        assert [event["name"] for event in within] == order
        assert sum(event["dur"] for event in within) == pytest.approx(around["dur"], abs=0.01)
    ends = [event["name"] for event in (main[0], *main[-2:])]
    assert ends == ["starting", "exchange statistics", "between steps"]
    [process] = [event["args"]["name"] for event in found["traceEvents"] if event["name"] == "process_name"]
    assert process.startswith("rank 0 on ")


def test_times_are_those_that_the_solver_measures(tmp_path: Path) -> None:
    measured: list[dict[str, float]] = []

    def train(solver: Solver) -> None:
        solver.net.layers[1].forward = _slowed(solver.net.layers[1].forward)  # type: ignore[method-assign]
        solver.step(4)
        measured.append({"forward": solver.times.parts.forward_s, "backward": solver.times.parts.backward_s})

    found = run(tmp_path / "timeline.json", 1, train)
    for phase, seconds in measured[0].items():
        shown = sum(event["dur"] for event in on_track(found, 0) if event["cat"] == phase) / 1e6
        assert shown == pytest.approx(seconds, rel=0.2, abs=0.02)
    assert measured[0]["forward"] > 0.08


def _slowed(function: Callable[..., Any]) -> Callable[..., Any]:
    def slowed(*arguments: Any) -> Any:
        time.sleep(0.02)
        return function(*arguments)

    return slowed


@pytest.mark.parametrize(
    ("exchange", "nodes"), [("tree", [0, 0]), ("tree", [0, 1]), ("sharded", [0, 0]), ("ring", [0, 1])]
)
def test_slices_of_every_rank_are_shown_on_their_way(
    tmp_path: Path, exchange: str, nodes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paratrain.data_parallel.ways.slice_length", lambda *_: 2500)
    found = run(tmp_path / "timeline.json.gz", 2, lambda solver: solver.step(3), exchange=exchange, nodes=nodes)
    slice_count = 3
    for rank in range(2):
        steps = iterations(on_track(found, rank))
        assert len(steps) == 3
        for _, within in steps:
            names = [event["name"] for event in within]
            updates = names.count("update")
            assert updates == (slice_count if exchange != "tree" or rank == 0 else 0), names
            assert {"forward ip1", "backward ip1", "exchange gradients", "exchange parameters"} <= set(names)
        slices = [
            event for event in found["traceEvents"] if event["ph"] == "X" and event["pid"] == rank and event["tid"] > 0
        ]
        for what in ("sum", "spread"):
            for number in range(slice_count):
                jobs = [event for event in slices if event["name"] == f"{what} {number}"]
                assert len(jobs) == 3, (what, number)
                for job, (around, _) in zip(sorted(jobs, key=lambda job: job["ts"]), steps, strict=True):
                    assert around["ts"] <= job["ts"] <= job["ts"] + job["dur"] <= around["ts"] + around["dur"] + 1e-3
        details = {event["name"]: event["args"] for event in slices}
        assert details["sum 0"] == {"parameters": "ip1[0] to ip2[1]", "values": 2500}
        assert sum(details[f"sum {number}"]["values"] for number in range(slice_count)) == 300 * 20 + 300 + 900 + 3
    assert found["otherData"]["clock_error_us"] == {"rank 0": 0.0, "rank 1": 0.0}


def test_clocks_that_differ_are_brought_together(tmp_path: Path) -> None:
    """Rank 1's clock is an hour ahead and runs fast by 100 ppm; both ranks pass a barrier at the same time."""
    path = tmp_path / "timeline.json"

    def main(communicator: Communicator) -> None:
        def clock() -> int:
            now = time.perf_counter_ns()
            return now if communicator.rank == 0 else now + now // 10_000 + 3_600_000_000_000

        solver = make(communicator)
        timeline = Timeline(solver, communicator, clock=clock, clock_name=f"of rank {communicator.rank}")
        time.sleep(0.3)
        communicator.barrier()
        solver.activity.enter("verify", "here")
        time.sleep(0.3)
        timeline.write(path)
        communicator.barrier()
        solver.close()

    run_threads(2, main)
    found = read(path)
    times = [
        next(event["ts"] for event in on_track(found, rank) if event["name"] == "verify here") for rank in range(2)
    ]
    error_us = found["otherData"]["clock_error_us"]["rank 1"]
    assert 0 < error_us < 1e5
    assert abs(times[0] - times[1]) < error_us + 2e4  # a thread may be late to the barrier


def test_a_reading_is_right_within_its_error_and_drift_is_taken_out() -> None:
    ahead = 5_000_000_000

    def main(communicator: Communicator) -> list[ClockReading]:
        extra = ahead if communicator.rank == 2 else 0
        names = ["a", "a", "b"]
        return read_clocks(communicator, lambda: time.perf_counter_ns() + extra, names[communicator.rank])

    readings = run_threads(3, main)[0]
    assert readings[:2] == [ClockReading()] * 2
    assert abs(readings[2].offset_ns - ahead) <= readings[2].error_ns
    align = Alignment(ClockReading(1000, 100, 3), ClockReading(3000, 120, 5))
    assert [align(time_ns) for time_ns in (1000, 2000, 3000)] == [900, 1890, 2880]
    assert align.error_ns == 5
    assert name_clock() == name_clock() != ""


def test_steps_are_chosen(tmp_path: Path) -> None:
    found = run(tmp_path / "timeline.json", 2, lambda solver: solver.step(6), first=2, count=3)
    for rank in range(2):
        main = on_track(found, rank)
        assert [around["args"]["iteration"] for around, _ in iterations(main)] == [2, 3, 4]
        assert main[0]["name"] == "iteration 2"
        assert sum(event["cat"] == "update" for event in main) == (3 if rank == 0 else 0)


def test_a_timeline_of_steps_that_never_come_is_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = run(tmp_path / "timeline.json", 2, lambda solver: solver.step(2), first=2, count=3)
    assert {event["ph"] for event in found["traceEvents"]} == {"M"}
    assert "The timeline is empty" in caplog.text


def test_tests_have_what_they_run_in_them(tmp_path: Path) -> None:
    settings = f"test_iter: 2 test_interval: 2 test_net_param {{ {NET} }}"
    found = run(tmp_path / "timeline.json", 1, lambda solver: solver.solve(), settings=settings)
    main = on_track(found, 0)
    tests = [event for event in main if event["cat"] == "test"]
    assert len(tests) == 3  # before the first step, in the middle, and at the end
    for test in tests:
        within = [event["name"] for event in main if test["ts"] < event["ts"] < test["ts"] + test["dur"]]
        assert within.count("forward ip1") == within.count("data x") == 2
    assert [event["name"] for event in main if event["cat"] == "iteration"] == [
        "starting", *(f"iteration {number}" for number in range(4)), "after 4 iterations",
    ]  # fmt: skip


def test_memory_is_bounded(tmp_path: Path) -> None:
    found = run(tmp_path / "timeline.json", 2, lambda solver: solver.step(20), most=100)
    assert "on ranks 0, 1" in found["otherData"]["ends_early"]
    for rank in range(2):
        assert 0 < len(on_track(found, rank)) <= 110


def test_a_recorder_that_has_ended_listens_no_more() -> None:
    now = itertools.count()
    activity = Activity()
    recorder = Recorder(activity, most=100, clock=lambda: next(now))
    activity.enter("clear")
    recording = recorder.end()
    activity.enter("forward", "conv1")
    assert recording.kinds == [("starting", ""), ("clear", "")]
    assert list(recording.times) == [0, 1, 2]
    assert list(recording.activities) == [0, 1, PAUSE]
    assert list(recording.iterations) == [0, 0, 1, 0]


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    check_timeline_path(str(tmp_path / "timeline.json"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ParatrainError, match="does not exist"):
        check_timeline_path(str(tmp_path / "none" / "timeline.json"))
    with pytest.raises(ParatrainError, match="is a folder"):
        check_timeline_path(str(tmp_path))
    with pytest.raises(ParatrainError, match="cannot be written"):
        check_timeline_path("/proc/timeline.json")


def test_a_file_that_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    path.mkdir()
    with pytest.raises(ParatrainError, match="cannot be written"):
        run(path, 1, lambda solver: solver.step(1))
    assert list(tmp_path.iterdir()) == [path]
