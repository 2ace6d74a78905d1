"""Logs of training in Caffe's words: Caffe's own, those of its forks, and paratrain's."""

from __future__ import annotations

import datetime
import math
import re
from pathlib import Path
from typing import Any

from paratrain.errors import DataError
from paratrain.tools.runs.clock import RunClock
from paratrain.tools.runs.run import Run

__all__ = ["is_log", "read_log"]

_PREFIX = re.compile(r"([IWEF])(\d{4})?(\d\d)(\d\d) (\d\d):(\d\d):(\d\d(?:\.\d+)?)\s+\d+ [^\s\]]+:\d+\] ?")
"""Of a line of glog; newer versions print the year."""
_CREATED = re.compile(r"Log file created at: (\d{4})/")
_OUTPUT = re.compile(r"(Train|Test) net output #\d+: (\S+) = (\S+)")
_ITERATION = re.compile(r"Iteration (\d+)\b")
_SPEED = re.compile(r"\(([-+.\deE]+) iter/s")
_NUMBER = r"[-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|nan|inf)"
_LOSS = re.compile(rf"\bloss = ({_NUMBER})", re.IGNORECASE)
_RATE = re.compile(rf"\blr = ({_NUMBER})", re.IGNORECASE)
_TESTING = re.compile(r"Testing net \(#(\d+)\)")
_EPOCH = re.compile(r"Records: (\d+) in layer .*, ([\d.e+]+) iterations an epoch")
_BATCH = re.compile(r"Effective batch: (\d+) images")
_SETTINGS = "Initializing solver from parameters:"
_HEAD = ("Ranks", "Tree", "Effective batch", "Records", "Parameters", "Exchange", "Batch normalization", "Use CPU")


def is_log(beginning: str) -> bool:
    """Whether a text begins as a log does, somewhere in its first lines."""
    return "Log file created at: " in beginning or any(map(_PREFIX.match, beginning.splitlines()[:200]))


def read_log(path: Path) -> Run:
    """Read a log; lines that are nothing of a training are passed over.

    Raises DataError where it cannot be read, and where no iteration is in it.
    """
    reader = _Reader(path)
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                reader.read(line.rstrip("\r\n"))
    except OSError as error:
        raise DataError(f"{path}: the log cannot be read: {error.strerror}") from None
    run = reader.run
    if run.is_empty:
        hint = (
            "is `display` in the solver 0, or did training not begin?" if reader.has_prefix else "is it a log at all?"
        )
        raise DataError(f"{path}: no iteration is in this log; {hint}")
    return run


class _Reader:
    """Takes in line after line."""

    def __init__(self, path: Path) -> None:
        self.run = Run(path.name, [path])
        self.has_prefix = False
        self._year = 1972  # a leap year, where nobody says which
        self._knows_year = False
        self._clock = RunClock()
        self._now = math.nan
        self._iteration = -1
        self._test_net = 0
        self._starts = False
        self._settings: list[str] | None = None
        self._seen: dict[tuple[str, int, int, str], int] = {}

    def read(self, line: str) -> None:
        """Take in a line, without its end."""
        found = _PREFIX.match(line)
        if found is None:
            created = _CREATED.match(line)
            if created is not None:
                self._year, self._knows_year = int(created[1]), True
            if self._settings is not None:
                self._settings.append(line)
            cut = _ITERATION.search(line)  # the prefix may have been cut off, or be another one
            if cut is None and _OUTPUT.search(line) is None:
                return
            message = line[cut.start() :] if cut is not None else line
        else:
            self.has_prefix = True
            self._end_settings()
            self._take_time(found)
            message = line[found.end() :].strip()
            if found[1] != "I":
                self.run.warnings.append(message)
        self._take(message)

    def _take(self, message: str) -> None:
        output = _OUTPUT.search(message)
        if output is not None:
            self._take_output(output[1], output[2], _number(output[3]))
            return
        found = _ITERATION.match(message)
        if found is not None:
            self._take_iteration(int(found[1]), message)
            return
        facts = self.run.facts
        if message.startswith("Solving "):
            facts["net"] = message.removeprefix("Solving ").strip()
            self._starts = True
            if not math.isnan(self._now):
                self._clock.begin(self._now)
                if self.run.begun_at is None and self._knows_year:
                    self.run.begun_at = self._now
        elif message.startswith(_SETTINGS):
            self._settings = []
        elif message.partition(":")[0] in _HEAD or message.startswith("Use CPU"):
            facts.setdefault("head", [])
            if message not in facts["head"]:
                facts["head"].append(message)
            if (epoch := _EPOCH.match(message)) is not None and "iterations_per_epoch" not in facts:
                facts["record_count"], facts["iterations_per_epoch"] = int(epoch[1]), float(epoch[2])
            if (batch := _BATCH.match(message)) is not None:
                facts["images_per_iteration"] = int(batch[1])

    def _take_iteration(self, iteration: int, message: str) -> None:
        run = self.run
        if self._starts:
            run.drop_from(iteration)
            self._seen.clear()
            self._starts = False
        self._iteration = iteration
        seconds = None if math.isnan(self._now) else self._clock.seconds(self._now)
        testing = _TESTING.search(message)
        if testing is not None:
            self._test_net = int(testing[1])
            return
        loss, rate, speed = _LOSS.search(message), _RATE.search(message), _SPEED.search(message)
        if loss is not None:
            run.add_training(iteration, "loss", _number(loss[1]))
            if seconds is not None:
                run.training_seconds[iteration] = seconds
        if rate is not None:
            run.add_training(iteration, "lr", _number(rate[1]))
        batch: Any = run.facts.get("images_per_iteration")
        if speed is not None and batch and iteration > 0:
            run.add_training(iteration, "images_per_s", _number(speed[1]) * batch)

    def _take_output(self, kind: str, name: str, value: float) -> None:
        if self._iteration < 0:
            return
        key = (kind, self._iteration, self._test_net, name)
        count = self._seen[key] = self._seen.get(key, 0) + 1
        if count == 2:  # an output of several values
            first = self._series(kind, name).pop(self._iteration)
            self._series(kind, f"{name}[0]")[self._iteration] = first
            if not self._series(kind, name):
                self._all(kind).pop(self._key(kind, name))
        name = name if count == 1 else f"{name}[{count - 1}]"
        self._series(kind, name)[self._iteration] = value
        if not math.isnan(self._now):
            run = self.run
            times = run.training_seconds if kind == "Train" else run.test_seconds
            times[self._iteration] = self._clock.seconds(self._now)

    def _series(self, kind: str, name: str) -> dict[int, float]:
        found: dict[int, float] = self._all(kind).setdefault(self._key(kind, name), {})
        return found

    def _all(self, kind: str) -> dict[Any, dict[int, float]]:
        return self.run.outputs if kind == "Train" else self.run.tests

    def _key(self, kind: str, name: str) -> object:
        return name if kind == "Train" else (self._test_net, name)

    def _take_time(self, found: re.Match[str]) -> None:
        _, year, month, day, hour, minute, second = found.groups()
        if year is not None:
            self._year, self._knows_year = int(year), True
        at = self._stamp(int(month), int(day), int(hour), int(minute), float(second))
        if at < self._now - 180 * 86400 and year is None:  # the log goes on after the end of a year
            self._year += 1
            at = self._stamp(int(month), int(day), int(hour), int(minute), float(second))
        self._now = at

    def _stamp(self, month: int, day: int, hour: int, minute: int, second: float) -> float:
        try:
            return datetime.datetime(self._year, month, day, hour, minute).timestamp() + second
        except ValueError:  # 29 February of a year that is not known, or no date at all
            return self._now

    def _end_settings(self) -> None:
        if self._settings is not None:
            text = "\n".join(self._settings)
            self.run.facts["solver"] = text
            if (most := re.search(r"^max_iter: (\d+)", text, re.MULTILINE)) is not None:
                self.run.facts["max_iter"] = int(most[1])
            self._settings = None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
