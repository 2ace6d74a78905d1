"""The last words about a job."""

from __future__ import annotations

import contextlib
import glob
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["newest_snapshot", "write_report"]

T = TypeVar("T")


# A file system that does not answer, or a terminal that is held, may be why the job has to end: neither may prevent it.
_PATIENCE_S = 1.0


def write_report(text: str, snapshot_prefix: str = "") -> None:
    """Write why the job ends on stderr, in one piece, and which snapshot it may go on from, as far as that is to be had soon."""
    lines = [f"paratrain: {text}"]
    if snapshot_prefix:
        lines += _in_time(lambda: _snapshot_line(snapshot_prefix))
    _in_time(lambda: os.write(2, ("\n".join(lines) + "\n").encode(errors="replace")))


def _snapshot_line(prefix: str) -> str:
    newest = newest_snapshot(prefix)
    if newest is None:
        return f"  There is no snapshot of '{prefix}' yet."
    return f"  The newest snapshot is {newest}; --resume auto goes on from it."


def _in_time(work: Callable[[], T]) -> list[T]:
    """What ``work`` returns; nothing where it fails, or takes too long, in which case it is left to itself."""
    done: queue.SimpleQueue[list[T]] = queue.SimpleQueue()

    def run() -> None:
        found: list[T] = []
        with contextlib.suppress(OSError):  # nobody reads any more; the folder has gone
            found.append(work())
        done.put(found)

    threading.Thread(target=run, daemon=True, name="report").start()
    try:
        return done.get(timeout=_PATIENCE_S)
    except queue.Empty:
        return []


def newest_snapshot(prefix: str) -> str | None:
    """The name, without its ending, of the newest snapshot that was finished: its trainstate is written last."""
    found: dict[int, str] = {}
    start = Path(f"{prefix}_iter_")
    for path in start.parent.glob(f"{glob.escape(start.name)}*.trainstate"):
        number = path.stem.removeprefix(start.name)
        if number.isdigit() and path.stat().st_size > 0:
            found[int(number)] = str(path.with_suffix(""))
    return found[max(found)] if found else None
