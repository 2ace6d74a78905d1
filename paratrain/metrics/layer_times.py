"""How long each layer takes while a net is trained."""

from __future__ import annotations

import time

from paratrain.activity import Activity

__all__ = ["LayerTimes"]


class LayerTimes:
    """Adds up, from now on, the seconds of each layer of this rank: of passes that train, not of tests.

    It listens to ``activity``, which costs about half a microsecond for each layer and pass. Layers that compute along with
    another one take no time of their own: their time is the other's.
    """

    def __init__(self, activity: Activity) -> None:
        self.forward_s: dict[str, float] = {}
        """By layer; of layers that read, the time that was spent waiting for them."""
        self.backward_s: dict[str, float] = {}
        self.step_count = 0
        self._activity = activity
        self._is_training = False
        self._sums: dict[str, float] | None = None
        self._name = ""
        self._begin = 0.0
        activity.add_listener(self._hear)

    def _hear(self, phase: str, name: str) -> None:
        now = time.perf_counter()
        if self._sums is not None:
            self._sums[self._name] = self._sums.get(self._name, 0.0) + now - self._begin
            self._sums = None
        if phase == "clear":
            self.step_count += 1
        if phase in ("clear", "exchange"):  # a test, which follows "clear", is followed by the exchange of parameters
            self._is_training = True
        elif phase in ("test", "between steps"):
            self._is_training = False
        elif self._is_training and phase in ("data", "forward", "backward"):
            self._sums = self.backward_s if phase == "backward" else self.forward_s
            self._name, self._begin = name, now

    def record(self) -> dict[str, object]:
        """``steps``, and ``forward_s`` and ``backward_s`` by layer, to the microsecond."""
        return {
            "steps": self.step_count,
            "forward_s": {name: round(seconds, 6) for name, seconds in self.forward_s.items()},
            "backward_s": {name: round(seconds, 6) for name, seconds in self.backward_s.items()},
        }

    def close(self) -> None:
        """Listen no more."""
        self._activity.remove_listener(self._hear)
