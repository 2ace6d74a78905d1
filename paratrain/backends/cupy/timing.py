"""Times on the GPU, by its own clock."""

from __future__ import annotations

import itertools
from typing import Any

from paratrain import gpu

__all__ = ["EventTimer"]


class EventTimer:
    """Marks by CUDA events in a stream: nothing waits between them, so that work is given ahead as in training. Where the GPU has
    to wait for the host, that counts for the piece of work that it waits for. See :class:`paratrain.backends.timing.Timer`.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._marks: list[Any] = []

    def mark(self) -> None:
        event = gpu.library().cuda.Event()
        event.record(self._stream)
        self._marks.append(event)

    def seconds(self) -> list[float]:
        marks, self._marks = self._marks, []
        if marks:
            marks[-1].synchronize()
        elapsed_ms = gpu.library().cuda.get_elapsed_time
        return [elapsed_ms(begin, end) / 1000 for begin, end in itertools.pairwise(marks)]
