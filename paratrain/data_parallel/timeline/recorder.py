"""What one rank notes: when each of its activities began, and from when to when slices were on their way."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from paratrain.activity import Activity
from paratrain.comm.progress import Work

__all__ = ["PAUSE", "Clock", "Recorder", "Recording"]

Clock = Callable[[], int]
"""Nanoseconds since some moment."""

PAUSE = -1
"""In place of a kind: nothing is noted until the next entry."""


@dataclass
class Recording:
    """What a rank has noted, in the nanoseconds of its own clock. It can be sent to another rank."""

    kinds: list[tuple[str, str]] = field(default_factory=list)
    """Phase and name of each kind of activity; of jobs: "exchange" and, for example, "sum 3"."""
    times: array[int] = field(default_factory=lambda: array("q"))
    """When each activity began; it ended when the next one began."""
    activities: array[int] = field(default_factory=lambda: array("i"))
    """The kind of each activity, or PAUSE."""
    iterations: array[int] = field(default_factory=lambda: array("q"))
    """Two numbers for each iteration: that of its first activity, and its own."""
    jobs: array[int] = field(default_factory=lambda: array("q"))
    """Three numbers for each job: when it began, when it ended, and its kind."""
    is_full: bool = False
    """Whether it ends early, since it would have become too long."""


class Recorder:
    """Listens to ``activity``, and notes iterations ``first`` to ``first + count - 1`` (without ``count``: all from ``first``
    on; without ``first``, also what comes before training), until there are ``most`` entries.

    All calls come from the thread that trains. An entry takes 12 bytes, one of a job 24.
    """

    def __init__(
        self,
        activity: Activity,
        *,
        first: int | None = None,
        count: int | None = None,
        most: int,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        self.recording = Recording()
        self._activity = activity
        self._first, self._stop = first, None if count is None else (first or 0) + count
        self._most = most
        self._clock = clock
        self._numbers: dict[tuple[str, str], int] = {}
        self._iteration = activity.iteration
        self._is_on = False
        self._turn(is_on=first is None)
        self._hear(activity.phase, activity.name)
        activity.add_listener(self._hear)

    def _hear(self, phase: str, name: str) -> None:
        if phase == "clear" or self._activity.iteration != self._iteration:
            self._iteration = self._activity.iteration
            self._turn(is_on=self._first is None or (phase == "clear" and self._is_chosen(self._iteration)))
        if self._is_on:
            recording = self.recording
            recording.times.append(self._clock())
            recording.activities.append(self._number(phase, name))
            if len(recording.times) + len(recording.jobs) // 3 >= self._most:
                recording.is_full = True
                self._pause()

    def watched(self, what: str, index: int, work: Work) -> Work:
        """Run ``work``, which does ``what`` with slice ``index``, and note from when to when."""
        begin, was_on = self._clock(), self._is_on
        yield from work
        if was_on and self._is_on:
            self.recording.jobs.extend((begin, self._clock(), self._number("exchange", f"{what} {index}")))

    def end(self) -> Recording:
        """Listen no more, and return what has been noted."""
        self._activity.remove_listener(self._hear)
        self._pause()
        return self.recording

    def _is_chosen(self, iteration: int) -> bool:
        return (self._first or 0) <= iteration and (self._stop is None or iteration < self._stop)

    def _turn(self, *, is_on: bool) -> None:
        """Begin an iteration, which is noted or not."""
        if is_on and not self.recording.is_full:
            self._is_on = True
            self.recording.iterations.extend((len(self.recording.times), self._iteration))
        else:
            self._pause()

    def _pause(self) -> None:
        if self._is_on:
            self.recording.times.append(self._clock())
            self.recording.activities.append(PAUSE)
        self._is_on = False

    def _number(self, phase: str, name: str) -> int:
        number = self._numbers.get((phase, name))
        if number is None:
            number = self._numbers[phase, name] = len(self._numbers)
            self.recording.kinds.append((phase, name))
        return number
