"""From what ranks have noted to the Trace Event Format, which chrome://tracing and Perfetto read.

The format: "Trace Event Format", Google, in its object form. Each rank is a process; its activities are one thread of that,
and slices on their way are threads beside it, as many as there were slices on their way at the same time. Every event is
complete (phase X: begin and duration in microseconds), and events of a thread lie one after the other or in one another.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO

from paratrain.data_parallel.timeline.clocks import Alignment
from paratrain.data_parallel.timeline.recorder import PAUSE, Recording

__all__ = ["RankTrace", "write_trace"]

_MAIN = 0
# What a test runs, so that these are parts of it.
_WITHIN_TEST = ("data", "forward")


@dataclass
class RankTrace:
    """A rank's recording, and what is known of the rank."""

    rank: int
    host: str
    recording: Recording
    slice_details: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """For each slice what a viewer shows of it."""


class _Span(NamedTuple):
    """From ``begin`` to ``end``, in nanoseconds of the rank's clock; ``text`` is what else the event says, in JSON."""

    begin: int
    end: int
    thread: int
    text: str


def write_trace(
    stream: TextIO, traces: Sequence[RankTrace], alignments: Sequence[Alignment], notes: Mapping[str, Any]
) -> None:
    """Write the events of all ranks on the clock of rank 0, from 0 on, and ``notes`` beside them."""
    begins = [
        align(trace.recording.times[0])
        for trace, align in zip(traces, alignments, strict=True)
        if trace.recording.times
    ]
    origin = min(begins, default=0)
    stream.write('{"displayTimeUnit": "ms",\n"otherData": ' + json.dumps(notes) + ',\n"traceEvents": [')
    separator = "\n"
    for trace, align in zip(traces, alignments, strict=True):
        for line in _lines(trace, align, origin):
            stream.write(separator + line)
            separator = ",\n"
    stream.write("\n]}\n")


def _lines(trace: RankTrace, align: Alignment, origin: int) -> Iterator[str]:
    rank = trace.rank
    jobs = list(_jobs(trace))
    lane_count = max((span.thread for span in jobs), default=_MAIN)
    threads = {_MAIN: "main"} | {lane: f"exchange {lane}" for lane in range(_MAIN + 1, lane_count + 1)}
    yield _meta(rank, _MAIN, "process_name", {"name": f"rank {rank} on {trace.host}"})
    yield _meta(rank, _MAIN, "process_sort_index", {"sort_index": rank})
    for thread, name in threads.items():
        yield _meta(rank, thread, "thread_name", {"name": name})
        yield _meta(rank, thread, "thread_sort_index", {"sort_index": thread})
    for spans in (_iterations(trace.recording), _activities(trace.recording), jobs):
        for span in spans:
            begin, end = align(span.begin) - origin, align(span.end) - origin
            # Three decimals are whole nanoseconds, so that what touches still touches.
            times = f'"ts":{begin / 1000:.3f},"dur":{(end - begin) / 1000:.3f}'
            yield f'{{"ph":"X","pid":{rank},"tid":{span.thread},{times},{span.text}}}'


def _meta(rank: int, thread: int, name: str, values: Mapping[str, Any]) -> str:
    return json.dumps({"ph": "M", "pid": rank, "tid": thread, "name": name, "args": values})


def _text(name: str, category: str, details: Mapping[str, Any] | None = None) -> str:
    event: dict[str, Any] = {"name": name, "cat": category}
    if details:
        event["args"] = dict(details)
    return json.dumps(event, separators=(",", ":"))[1:-1]


def _iterations(recording: Recording) -> Iterator[_Span]:
    """The iterations, around their activities; and what comes before the first and after the last."""
    marks = recording.iterations
    times, activities = recording.times, recording.activities
    for mark in range(0, len(marks), 2):
        start, number = marks[mark], marks[mark + 1]
        stop = marks[mark + 2] if mark + 2 < len(marks) else len(times) - 1
        while stop > start and activities[stop - 1] == PAUSE:  # between this iteration and the next nothing was noted
            stop -= 1
        if start < stop:
            trains = recording.kinds[activities[start]][0] == "clear"
            name = f"iteration {number}" if trains else ("starting" if mark == 0 else f"after {number} iterations")
            yield _Span(times[start], times[stop], _MAIN, _text(name, "iteration", {"iteration": number}))


def _activities(recording: Recording) -> Iterator[_Span]:
    """What the rank did, one after the other; what a test runs lies in the test."""
    times, activities, kinds = recording.times, recording.activities, recording.kinds
    texts = [_text(f"{phase} {name}".rstrip(), phase) for phase, name in kinds]
    for index in range(len(times) - 1):
        number = activities[index]
        if number == PAUSE:
            continue
        stop = index + 1
        if kinds[number][0] == "test":
            while activities[stop] != PAUSE and kinds[activities[stop]][0] in _WITHIN_TEST:
                stop += 1
        yield _Span(times[index], times[stop], _MAIN, texts[number])


def _jobs(trace: RankTrace) -> Iterator[_Span]:
    """What was on its way, each in the first thread that is free, so that none overlap."""
    noted = trace.recording.jobs
    jobs = sorted((noted[index], noted[index + 1], noted[index + 2]) for index in range(0, len(noted), 3))
    texts: dict[int, str] = {}
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    for begin, end, kind in jobs:
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy) + 1
        heapq.heappush(busy, (end, lane))
        if kind not in texts:
            phase, name = trace.recording.kinds[kind]
            texts[kind] = _text(name, phase, trace.slice_details[int(name.split()[1])])
        yield _Span(begin, end, _MAIN + lane, texts[kind])
