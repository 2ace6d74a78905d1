"""Queues of late streams, and the chance by which they get on: see late.py."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from simulated import memory
from simulated.memory import Block

__all__ = ["BLOCKING", "NON_BLOCKING", "NULL", "Queue", "Range", "Scheduler", "Work"]

NULL, BLOCKING, NON_BLOCKING = range(3)
"""Kinds of streams: the null stream and blocking ones wait for one another, as CUDA's legacy default stream has it."""
_PHASE = 40
"""Choices after which streams change their pace."""

Range = tuple[int, int]


class Queue:
    """What a stream has still to do."""

    def __init__(self, device: int, kind: int) -> None:
        self.device, self.kind = device, kind
        self.items: deque[Work] = deque()


class Work:
    """One piece: it runs when those before it in its queue, and those ``after`` which it comes, have run."""

    __slots__ = ("action", "after", "blocks", "host", "is_done", "number", "queue")

    def __init__(self, number: int, queue: Queue, action: Callable[[], object], after: Iterable[Work]) -> None:
        self.number, self.queue, self.is_done = number, queue, False
        self.action: Callable[[], object] | None = action
        self.after = [work for work in after if not work.is_done]
        self.blocks: Sequence[Block] = ()
        self.host: Sequence[Range] = ()


class Scheduler:
    """Draws which stream gets on next. All is done under the one lock of the memory."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)
        self.numbers = itertools.count()
        self.active: dict[Queue, None] = {}
        self.failures: list[Exception] = []
        self.is_running = False
        self.postponed: list[Callable[[], None]] = []
        self._choices = 0
        self._draw_pace()

    def _draw_pace(self) -> None:
        self.eager = self.random.choice((0.0, 0.0, 0.2, 0.6))
        """How often work runs when more is given."""
        self.aside = self.random.choice((0.0, 0.0, 0.3, 0.7))
        """How often another stream gets on, while the host waits for one."""
        self.quick = self.random.choice((0.1, 0.5, 0.9))
        """How often an event that is asked about is done."""
        self._speed: dict[Queue, int] = {}

    def ready(self) -> list[Work]:
        return [queue.items[0] for queue in self.active if all(work.is_done for work in queue.items[0].after)]

    def needed(self, works: Iterable[Work]) -> dict[Queue, int]:
        """For each queue, the number of the last work that has to run before all of these have."""
        last: dict[Queue, int] = {}
        unseen = [work for work in works if not work.is_done]
        while unseen:
            work = unseen.pop()
            before = last.get(work.queue, -1)
            if work.number > before:
                last[work.queue] = work.number
                for other in work.queue.items:
                    if before < other.number <= work.number:
                        unseen += (found for found in other.after if not found.is_done)
        return last

    def step(self, needed: dict[Queue, int]) -> bool:
        """Run a piece of work, mostly one that is needed; whether there was one."""
        self._choices += 1
        if self._choices % _PHASE == 0:
            self._draw_pace()
        wanted, others = [], []
        for work in self.ready():
            (wanted if work.number <= needed.get(work.queue, -1) else others).append(work)
        found = wanted
        if others and ((not wanted and not needed) or self.random.random() < self.aside):
            paces = [self._speed.setdefault(work.queue, self.random.choice((0, 1, 5))) for work in others]
            found = self.random.choices(others, paces) if any(paces) else wanted
        if found:
            self._run(self.random.choice(found))
        return bool(found)

    def _run(self, work: Work) -> None:
        queue = work.queue
        self.is_running = memory.side.is_device = True
        try:
            assert work.action is not None
            work.action()
        except Exception as error:  # whoever calls CUDA next is told
            self.failures.append(error)
        finally:
            self.is_running = memory.side.is_device = False
        queue.items.popleft()
        if not queue.items:
            del self.active[queue]
        work.is_done = True
        for block in work.blocks:
            block.users.discard(work)
        work.after, work.action = [], None
        while self.postponed and not self.is_running:
            self.postponed.pop(0)()

    def advance(self) -> None:
        """Let some work run by chance."""
        if not self.is_running and self.random.random() < self.eager:
            for _ in range(self.random.randint(1, 4)):
                if not self.step({}):
                    return

    def finish(self, works: Iterable[Work]) -> None:
        works = list(works)
        if self.is_running:
            raise RuntimeError("work of a stream waits for a stream")
        needed = self.needed(works)
        while not all(work.is_done for work in works):
            self.step(needed)

    def tell(self) -> None:
        """Raise what went wrong, once."""
        if self.failures and not self.is_running:
            raise self.failures.pop(0)
