"""What becomes of records that cannot be used: they stop the run, or others take their places."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

from paratrain.data.options import BadRecordMode
from paratrain.errors import DataError

__all__ = ["BadRecords"]

logger = logging.getLogger(__name__)

_LOGGED_ONE_BY_ONE = 5
_MOST_IN_A_ROW = 1000


class BadRecords:
    """The records of a source, ``count`` in number, that have been found bad; for any number of threads at once.

    With ``mode`` "stop" a bad record is an error. With "skip" the next good one takes its place, in the order of the
    source and from its start again after the last: what a batch holds depends on the source alone, not on who read
    what before. The first few are logged, one by one, then their number as it grows. 1,000 bad records in a row are no
    accident, and an error.
    """

    def __init__(self, count: int, mode: BadRecordMode = "stop") -> None:
        self._count = count
        self._mode = mode
        self._known: set[int] = set()
        self._last: DataError | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def candidates(self, record: int) -> Iterator[int]:
        """Yield the record, if it is not known to be bad, and those that may take its place, the first one first.

        Raises DataError after the last that may.
        """
        tried_count = min(self._count, _MOST_IN_A_ROW)
        for step in range(tried_count):
            number = (record + step) % self._count
            if number not in self._known:
                yield number
        which = f"none of the {self._count}" if tried_count == self._count else f"none of {tried_count} successive"
        raise DataError(f"{which} records can be used; the last: {self._last}")

    def add(self, record: int, error: DataError) -> None:
        """Note that a record is bad; ``error`` names it. Raises the error where bad records stop the run."""
        if self._mode == "stop":
            raise error
        with self._lock:
            if record in self._known:
                return
            self._known.add(record)
            self._last = error
            count = len(self._known)
        if count <= _LOGGED_ONE_BY_ONE:
            logger.warning("%s; the next good record takes its place", error)
        elif count in (10, 20, 50) or count % 100 == 0:
            logger.warning("%d of %d records are bad so far; the last is %s", count, self._count, error)
