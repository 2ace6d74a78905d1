"""Late streams: work waits in its stream's queue until something that CUDA orders demands it, or until chance lets it run.

Without this mode work is done when it is given. With it a stream that should have waited for another one, memory of the host
that is written while a copy still has to read it, and results that are read too early are seen: in which order streams get on
is drawn by a seed, within what CUDA promises. SIMULATED_GPU_LATE=1 turns it on in a process, SIMULATED_GPU_SEED (0) is the seed.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from simulated import memory
from simulated.errors import CUDARuntimeError
from simulated.memory import Block, lock

__all__ = ["Queue", "Work", "ask", "begin", "end", "finish", "finish_device", "finish_queue", "free", "give", "is_on", "last_of", "leave_host", "retire"]

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
        self.blocks: Sequence[tuple[Block, int]] = ()
        self.host: Sequence[Range] = ()


class _Scheduler:
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
        if others and (not wanted and not needed or self.random.random() < self.aside):
            paces = [self._speed.setdefault(work.queue, self.random.choice((0, 1, 5))) for work in others]
            found = self.random.choices(others, paces) if any(paces) else wanted
        if found:
            self._run(self.random.choice(found))
        return bool(found)

    def _run(self, work: Work) -> None:
        queue = work.queue
        self.is_running = memory.side.is_device = True
        try:
            for block, generation in work.blocks:
                if block.retired >= generation:
                    raise CUDARuntimeError(
                        700, f"work of a stream uses {block.capacity:,} bytes that went back to the pool before it ran"
                    )
            assert work.action is not None
            work.action()
        except Exception as error:  # noqa: BLE001 whoever calls CUDA next is told
            self.failures.append(error)
        finally:
            self.is_running = memory.side.is_device = False
        queue.items.popleft()
        if not queue.items:
            del self.active[queue]
        work.is_done = True
        for block, _ in work.blocks:
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


_scheduler: _Scheduler | None = None


def is_on() -> bool:
    return _scheduler is not None


def _now() -> _Scheduler:
    assert _scheduler is not None
    return _scheduler


def begin(seed: int | str) -> None:
    """From now on streams are late."""
    global _scheduler
    assert _scheduler is None
    _scheduler = _Scheduler(seed)


def end() -> None:
    """Run all that is left; streams are not late any more. Raises what went wrong and nobody has been told."""
    global _scheduler
    scheduler = _now()
    with lock:
        scheduler.finish([queue.items[-1] for queue in scheduler.active])
        _scheduler = None
    scheduler.tell()


def give(
    queue: Queue,
    action: Callable[[], object],
    after: Iterable[Work] = (),
    blocks: Iterable[tuple[Block, int]] = (),
    host: Sequence[Range] = (),
    *,
    is_silent: bool = False,
) -> Work:
    """Put work into a queue. ``blocks``, with their generations, and ``host``, addresses and sizes, are what it uses."""
    scheduler = _now()
    with lock:
        opposite = {NULL: BLOCKING, BLOCKING: NULL}.get(queue.kind)
        legacy = [other.items[-1] for other in scheduler.active if (other.kind, other.device) == (opposite, queue.device)]
        work = Work(next(scheduler.numbers), queue, action, [*legacy, *after])
        work.blocks, work.host = list(blocks), host
        for block, _ in work.blocks:
            block.users.add(work)
        queue.items.append(work)
        scheduler.active[queue] = None
        if not is_silent:
            scheduler.advance()
    if not is_silent:
        scheduler.tell()
    return work


def finish(work: Work) -> None:
    """Return when it has run."""
    with lock:
        _now().finish([work])
    _now().tell()


def finish_queue(queue: Queue) -> None:
    """Return when all that a stream was given has run, and what CUDA orders before."""
    finish(give(queue, _nothing))


def finish_device(device: int) -> None:
    with lock:
        _now().finish([queue.items[-1] for queue in _now().active if queue.device == device])
    _now().tell()


def ask(work: Work) -> bool:
    """Whether it has run: perhaps not yet."""
    if work.is_done:
        return True
    scheduler = _now()
    with lock:
        if not work.is_done and scheduler.random.random() < scheduler.quick:
            needed = scheduler.needed([work])
            for _ in range(scheduler.random.choice((1, 3, 1000))):
                if work.is_done:
                    break
                scheduler.step(needed)
        else:
            scheduler.advance()
    scheduler.tell()
    return work.is_done


def last_of(queue: Queue) -> Work | None:
    return queue.items[-1] if queue.items else None


def retire(block: Block, queue: Queue, action: Callable[[], object]) -> None:
    """A block goes back to the pool of a stream: later work of this stream may get it. ``action`` ends its life there.

    Work of other streams that uses it must be done, or ordered before: CuPy does not look.
    """
    with lock:
        scheduler, generation = _now(), block.generation

        def leave() -> None:
            block.retired = generation
            action()

        work = give(queue, leave, is_silent=True)
        before = scheduler.needed([work])
        for user in block.users:
            if user.queue is not queue and user.number > before.get(user.queue, -1):
                scheduler.failures.append(
                    CUDARuntimeError(
                        700,
                        f"{block.size:,} bytes went back to the pool of their stream while work of another stream was still to use them",
                    )
                )
                break


def free(block: Block) -> None:
    """cudaFree, which waits for the device."""
    if _scheduler is None:
        memory.free(block)
    elif _scheduler.is_running:  # Python tidied up in the middle of something
        _scheduler.postponed.append(lambda: free(block))
    else:
        with lock:
            _scheduler.finish([queue.items[-1] for queue in _scheduler.active if queue.device == block.device])
            _scheduler.finish(list(block.users))
            memory.free(block)


def leave_host(address: int, size: int) -> None:
    """Memory of the host is about to go, or to be pinned no more: nothing may still have to use it."""
    if _scheduler is None:
        return
    with lock:
        users = [
            work
            for queue in _scheduler.active
            for work in queue.items
            if any(start < address + size and address < start + length for start, length in work.host)
        ]
        if users:
            _scheduler.failures.append(
                CUDARuntimeError(700, f"{size:,} bytes of pinned memory went while a copy was still to use them")
            )
            if not _scheduler.is_running:
                _scheduler.finish(users)


def _nothing() -> None:
    pass


if os.environ.get("SIMULATED_GPU_LATE", "0") == "1":
    begin(f"{os.environ.get('SIMULATED_GPU_SEED', '0')} {os.environ.get('PMI_RANK', '')}")
