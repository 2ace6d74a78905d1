"""The same work for a backend again and again: recorded, where the backend can."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from paratrain.backends.base import Backend, Recording

__all__ = ["RecordedCalls"]

_MOST_RECORDINGS = 8


class RecordedCalls:
    """Runs work that is named by a key, which tells all that its launches depend on: addresses, sizes, settings.

    The first time for a key is a plain call, which makes all buffers; the second is recorded; from then on the recording runs.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._may_record = backend.can_record
        self._seen: set[Hashable] = set()
        self._recordings: dict[Hashable, Recording] = {}

    def run(self, key: Hashable, give: Callable[[], None]) -> None:
        """Give the work of this key to the backend, which ``give`` does by launches alone."""
        recording = self._recordings.get(key)
        if recording is None and self._may_record and key in self._seen and len(self._recordings) < _MOST_RECORDINGS:
            recording = self._backend.record(give)
            if recording is None:
                self._may_record = False
            else:
                self._recordings[key] = recording
        if recording is not None:
            recording.replay()
            return
        if len(self._seen) < _MOST_RECORDINGS:
            self._seen.add(key)
        give()
