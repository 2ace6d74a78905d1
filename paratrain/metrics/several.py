"""Several sinks as one, with the time of each record."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from paratrain.metrics.sink import Figure, Sink

__all__ = ["SeveralWriters"]


class SeveralWriters:
    """Passes every record to all ``sinks``, with ``time``: seconds since 1970, in UTC, to the millisecond."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._lock = threading.Lock()  # warnings come from other threads, too

    def write(self, **figures: Figure) -> None:
        """Pass a record on."""
        now = round(time.time(), 3)
        with self._lock:
            for sink in self._sinks:
                sink.write(**figures, time=now)

    def close(self) -> None:
        """Close all."""
        for sink in self._sinks:
            sink.close()
