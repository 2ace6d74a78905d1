"""Many small jobs that wait for other ranks, moved on by one thread whenever it comes by."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator

from paratrain.comm.communicator import Communicator
from paratrain.comm.patience import wait_until

__all__ = ["Condition", "Progress", "Work"]

Condition = Callable[[], bool]
Work = Generator[Condition, None, None]
"""A job written as a generator: where it has to wait, it yields a question, and goes on when that is answered by True."""


class Progress:
    """Runs jobs, each as far as it comes without waiting, at most `limit` of them at a time.

    Jobs are begun in the order in which they were added. Jobs that exchange messages are added in the same order on all
    ranks: then each rank sooner or later begins what the others wait for. Jobs that wait for the condition ``uncounted`` have
    nothing under way, and take no place.
    """

    def __init__(self, communicator: Communicator, limit: int, uncounted: Condition | None = None) -> None:
        assert limit > 0
        self._communicator = communicator
        self._limit = limit
        self._uncounted = uncounted
        self._begun: list[tuple[Condition, Work]] = []
        self._waiting: deque[Work] = deque()

    def add(self, work: Work) -> None:
        """Take a job on; it is begun at the next `poll`."""
        self._waiting.append(work)

    def poll(self) -> bool:
        """Move every job on as far as it comes without waiting. Return whether all have ended."""
        still: list[tuple[Condition, Work]] = []
        for is_answered, work in self._begun:
            if not is_answered():
                still.append((is_answered, work))
            else:
                self._resume(work, still)
        taken = sum(1 for condition, _ in still if condition is not self._uncounted)
        while self._waiting and taken < self._limit:
            before = len(still)
            self._resume(self._waiting.popleft(), still)
            taken += len(still) > before and still[-1][0] is not self._uncounted
        self._begun = still
        return not still

    def finish(self, action: str, is_enough: Condition | None = None) -> None:
        """Return when all jobs have ended, or before, when `is_enough` says so.

        Raises CommunicationError, which names `action`, if a rank is gone.
        """
        wait_until(
            lambda: self.poll() or (is_enough is not None and is_enough()),
            lambda: self._communicator.check_all_present(action),
        )

    @staticmethod
    def _resume(work: Work, still: list[tuple[Condition, Work]]) -> None:
        """Go on with a job until it has to wait, or ends."""
        for is_answered in work:
            if not is_answered():
                still.append((is_answered, work))
                return
