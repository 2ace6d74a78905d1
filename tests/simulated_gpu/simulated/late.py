"""Late streams: work waits in its stream's queue until something that CUDA orders demands it, or until chance lets it run.

Without this mode work is done when it is given. With it a stream that should have waited for another one, memory of the host
that is written while a copy still has to read it, and results that are read too early are seen: in which order streams get on
is drawn by a seed, within what CUDA promises. SIMULATED_GPU_LATE=1 turns it on in a process, SIMULATED_GPU_SEED (0) is the seed.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from simulated import memory
from simulated.errors import CUDARuntimeError
from simulated.memory import Block, lock
from simulated.scheduler import BLOCKING, NON_BLOCKING, NULL, Queue, Range, Scheduler, Work

__all__ = [
    "BLOCKING",
    "NON_BLOCKING",
    "NULL",
    "Queue",
    "Range",
    "Work",
    "ask",
    "begin",
    "end",
    "finish",
    "finish_device",
    "finish_queue",
    "free",
    "give",
    "is_on",
    "last_of",
    "leave_host",
    "retire",
]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """The lock, without Python's search for garbage, which might give memory back in the middle."""
    with lock:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()


_scheduler: Scheduler | None = None


def is_on() -> bool:
    return _scheduler is not None


def _now() -> Scheduler:
    assert _scheduler is not None
    return _scheduler


def begin(seed: int | str) -> None:
    """From now on streams are late."""
    global _scheduler
    assert _scheduler is None
    _scheduler = Scheduler(seed)


def end() -> None:
    """Run all that is left; streams are not late any more. Raises what went wrong and nobody has been told."""
    global _scheduler
    scheduler = _now()
    with _alone():
        scheduler.finish([queue.items[-1] for queue in scheduler.active])
        _scheduler = None
    scheduler.tell()


def give(
    queue: Queue,
    action: Callable[[], object],
    after: Iterable[Work] = (),
    blocks: Iterable[Block] = (),
    host: Sequence[Range] = (),
    *,
    is_silent: bool = False,
) -> Work:
    """Put work into a queue. ``blocks`` and ``host``, addresses and sizes, are what it uses."""
    scheduler = _now()
    with _alone():
        opposite = {NULL: BLOCKING, BLOCKING: NULL}.get(queue.kind)
        legacy = [
            other.items[-1] for other in scheduler.active if (other.kind, other.device) == (opposite, queue.device)
        ]
        work = Work(next(scheduler.numbers), queue, action, [*legacy, *after])
        work.blocks, work.host = list(blocks), host
        for block in work.blocks:
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
    if _scheduler is None:
        assert work.is_done  # in a time of late streams that has ended
        return
    with _alone():
        _now().finish([work])
    _now().tell()


def finish_queue(queue: Queue) -> None:
    """Return when all that a stream was given has run, and what CUDA orders before."""
    finish(give(queue, _nothing))


def finish_device(device: int) -> None:
    with _alone():
        _now().finish([queue.items[-1] for queue in _now().active if queue.device == device])
    _now().tell()


def ask(work: Work) -> bool:
    """Whether it has run: perhaps not yet."""
    if work.is_done:
        return True
    scheduler = _now()
    with _alone():
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
    with _alone():
        scheduler = _now()
        work = give(queue, action, is_silent=True)
        before = scheduler.needed([work])
        for user in block.users:
            if user.queue is not queue and user.number > before.get(user.queue, -1):
                scheduler.failures.append(
                    CUDARuntimeError(
                        700,
                        f"{block.size:,} bytes went back to the pool while work of another stream was still to use them",
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
        with _alone():
            _scheduler.finish([queue.items[-1] for queue in _scheduler.active if queue.device == block.device])
            _scheduler.finish(list(block.users))
            memory.free(block)


def leave_host(address: int, size: int) -> None:
    """Memory of the host is about to go, or to be pinned no more: nothing may still have to use it."""
    if _scheduler is None:
        return
    with _alone():
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
