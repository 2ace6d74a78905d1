"""How long the parts of a training step take."""

from __future__ import annotations

import time
from dataclasses import asdict, astuple, dataclass, field, fields

__all__ = ["PARTS", "StepTimes", "Stopwatch"]


class Stopwatch:
    """Seconds that passed while it was running."""

    def __init__(self) -> None:
        self._counted_s = 0.0
        self._running_since: float | None = None

    def resume(self) -> None:
        """Start to count."""
        self._running_since = time.perf_counter()

    def pause(self) -> None:
        """Stop counting."""
        self._counted_s, self._running_since = self.elapsed_s, None

    def reset(self) -> None:
        """Set to zero; a running watch goes on."""
        self._counted_s = 0.0
        if self._running_since is not None:
            self.resume()

    @property
    def elapsed_s(self) -> float:
        """Seconds counted since the last reset."""
        running = self._running_since
        return self._counted_s + (0.0 if running is None else time.perf_counter() - running)


@dataclass
class Parts:
    """Seconds spent in the parts of a step, by the names that metrics use."""

    data_s: float = 0.0
    forward_s: float = 0.0
    backward_s: float = 0.0
    exchange_s: float = 0.0
    update_s: float = 0.0


PARTS = tuple(part.name for part in fields(Parts))


@dataclass
class StepTimes:
    """Two reckonings of the time inside ``step``: what a script does between two calls of it does not count.

    ``since_display`` runs from one displayed line to the next, as Caffe's iteration timer. Everything else counts whole
    iterations, and is for the metrics.
    """

    since_display: Stopwatch = field(default_factory=Stopwatch)
    watch: Stopwatch = field(default_factory=Stopwatch)
    parts: Parts = field(default_factory=Parts)
    other_s: float = 0.0
    """Testing and snapshots: not a part of the training speed."""
    image_count: int = 0
    step_count: int = 0
    predicted_step_s: float | None = None
    """What the cost model predicts for ``exchange_s + update_s`` of one step; None where it predicts nothing."""
    before_reset: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))
    """Of the parts, what has been set to zero since ``take_parts``, less what it had returned already."""
    has_hinted: bool = False
    """Whether it has been said that training waits for data."""

    @property
    def training_s(self) -> float:
        """Seconds of training."""
        return self.watch.elapsed_s - self.other_s

    @property
    def data_share(self) -> float:
        """The share of the time of training that was spent waiting for data, from 0 to 1."""
        return self.parts.data_s / self.training_s if self.training_s > 0 else 0.0

    def resume(self) -> None:
        """Start to count."""
        self.since_display.resume()
        self.watch.resume()

    def pause(self) -> None:
        """Stop counting."""
        self.since_display.pause()
        self.watch.pause()

    def figures(self) -> dict[str, float]:
        """``images_per_s`` (0 before there is anything to divide by), the parts and ``data_share``; and where there is a
        prediction, ``exchange_predicted_s``, for as many steps as the parts were measured over.
        """
        speed = self.image_count / self.training_s if self.training_s > 0 else 0.0
        figures = {"images_per_s": speed, **asdict(self.parts), "data_share": self.data_share}
        if self.predicted_step_s is not None:
            figures["exchange_predicted_s"] = self.predicted_step_s * self.step_count
        return figures

    def take_parts(self) -> list[float]:
        """The seconds of each of PARTS since this was called before."""
        now = list(astuple(self.parts))
        taken = [earlier + value for earlier, value in zip(self.before_reset, now, strict=True)]
        self.before_reset = [-value for value in now]
        return taken

    def reset(self) -> None:
        """Set all to zero but ``since_display`` and the prediction."""
        self.before_reset = [a + b for a, b in zip(self.before_reset, astuple(self.parts), strict=True)]
        self.watch.reset()
        self.parts, self.other_s, self.image_count, self.step_count = Parts(), 0.0, 0, 0
