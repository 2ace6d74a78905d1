"""What is known of a run: its curves, and what it says of itself."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paratrain.errors import DataError

__all__ = ["AXES", "PARTS", "Run", "Series", "kind_of"]

Series = dict[int, float]
"""A value by iteration. A run that is gone on with from a snapshot does some iterations again; the last time counts."""

AXES = ("iterations", "seconds", "epochs")
PARTS = ("data_s", "forward_s", "backward_s", "exchange_s", "update_s")
"""Where the time of a step goes, in the order of a step."""


def kind_of(output: str) -> str:
    """What an output is, by its name: ``accuracy`` (``acc``, ``loss3/top-5``), ``loss``, or empty for neither."""
    last = output.lower().rsplit("/", 1)[-1]
    if re.match(r"acc|top-?\d", last) or "accuracy" in last:
        return "accuracy"
    if "loss" in last:
        return "loss"
    return "accuracy" if "accuracy" in output.lower() else ""


@dataclass
class Run:
    """A run; what its files do not tell is empty."""

    name: str
    paths: list[Path] = field(default_factory=list)
    training: dict[str, Series] = field(default_factory=dict)
    """Figures of displayed iterations, by the names that metrics have: ``loss``, ``lr``, ``images_per_s``, ``data_s`` ..."""
    outputs: dict[str, Series] = field(default_factory=dict)
    """Outputs of the net that is trained, by name."""
    tests: dict[tuple[int, str], Series] = field(default_factory=dict)
    """Outputs of the test nets, by number of the net and name."""
    training_seconds: Series = field(default_factory=dict)
    """When an iteration was displayed: seconds since training began, without pauses between runs that go on."""
    test_seconds: Series = field(default_factory=dict)
    ranks: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    """PARTS of each rank, by displayed iteration."""
    layers: dict[str, Any] = field(default_factory=dict)
    """``steps``, ``forward_s`` and ``backward_s``, as metrics have them."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the run says of itself: the ``run`` record of metrics, or as much of it as a log tells."""
    warnings: list[str] = field(default_factory=list)
    begun_at: float | None = None
    """Seconds since 1970; None where nobody says so."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no figure at all."""
        return not (any(self.training.values()) or any(self.tests.values()))

    @property
    def last_iteration(self) -> int:
        """The largest iteration that is displayed or tested."""
        return max((max(series) for series in (*self.training.values(), *self.tests.values()) if series), default=0)

    def add_training(self, iteration: int, name: str, value: float) -> None:
        """Enter a figure of a displayed iteration."""
        self.training.setdefault(name, {})[iteration] = value

    def add_test(self, iteration: int, test_net: int, name: str, value: float) -> None:
        """Enter an output of a test net."""
        self.tests.setdefault((test_net, name), {})[iteration] = value

    def drop_from(self, iteration: int) -> None:
        """Forget what comes at ``iteration`` or later: the run goes on from there, and does that again."""
        curves = (*self.training.values(), *self.outputs.values(), *self.tests.values())
        tables: list[dict[int, Any]] = [*curves, self.training_seconds, self.test_seconds, self.ranks]
        for table in tables:
            for at in [at for at in table if at >= iteration]:
                del table[at]

    def places(
        self, series: Mapping[int, float], axis: str, *, is_test: bool = False
    ) -> tuple[list[float], list[float]]:
        """The x and y of a curve, in the order of the iterations, along one of AXES.

        Raises DataError where the run does not tell how long its iterations took, or how many are an epoch.
        """
        iterations = sorted(series)
        values = [series[at] for at in iterations]
        if axis == "iterations":
            return [float(at) for at in iterations], values
        if axis == "seconds":
            seconds = self.test_seconds if is_test else self.training_seconds
            timed = [at for at in iterations if at in seconds]
            if iterations and not timed:
                raise DataError(f"{self.name}: does not say when its iterations were; plot it against iterations")
            return [seconds[at] for at in timed], [series[at] for at in timed]
        per_epoch = self.facts.get("iterations_per_epoch")
        if not per_epoch:
            raise DataError(
                f"{self.name}: does not say how many iterations are an epoch; give --epoch-iterations N, "
                "the records divided by the effective batch"
            )
        return [at / per_epoch for at in iterations], values

    def named_tests(self, kind: str) -> dict[tuple[int, str], Series]:
        """The outputs of test nets that are of a kind: ``loss`` or ``accuracy``."""
        return {key: series for key, series in self.tests.items() if kind_of(key[1]) == kind}

    def mean(self, name: str) -> float:
        """The mean of a figure of training over what is displayed; not-a-number where there is none."""
        values = [value for value in self.training.get(name, {}).values() if math.isfinite(value)]
        return sum(values) / len(values) if values else math.nan
