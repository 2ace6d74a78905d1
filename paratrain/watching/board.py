"""The memory in which a rank writes where it is, and which its helper reads, also after the rank has died."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time

from paratrain.activity import Activity
from paratrain.watching.state import ANY, RankState

__all__ = ["Board", "BoardReader", "create_memory"]

# Words of 8 bytes. The first five are written together.
_COUNT, _ITERATION, _ENTRY, _SINCE, _WAITS, _WAITS_SINCE, _FLAGS, _TABLE_BYTES = range(8)
_write_entry = struct.Struct("@5q").pack_into
_now_ns = time.monotonic_ns
_WORD_COUNT = 16
_TABLE_START = 8 * _WORD_COUNT
_DONE, _EXPLAINED = 1, 2
SIZE_BYTES = 256 * 1024  # only what is written takes memory


def create_memory(name: str, size_bytes: int) -> int:
    """Return a descriptor of memory that goes with its last user. OSError where there is none."""
    try:
        descriptor = os.memfd_create(name)
    except AttributeError:  # a Python that was built for older systems
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size_bytes)
    return descriptor


class Board:
    """The rank's side. It listens to the activity: an entry takes a few stores, no system call.

    Phases and names are written once, into a table of lines, and from then on by number. Entry 0 stands for those that
    the table has no room for.
    """

    def __init__(self, descriptor: int, activity: Activity) -> None:
        self._memory = mmap.mmap(descriptor, SIZE_BYTES)
        self._words = memoryview(self._memory).cast("q")
        self._activity = activity
        self._numbers: dict[tuple[str, str], int] = {}
        self._end = _TABLE_START
        self.enter(activity.phase, activity.name)
        activity.add_listener(self.enter)

    def enter(self, phase: str, name: str) -> None:
        """The rank begins something; so it does not wait any more."""
        try:
            number = self._numbers[phase, name]
        except KeyError:
            number = self._add(phase, name)
        activity = self._activity
        _write_entry(self._memory, 0, activity.count, activity.iteration, number, _now_ns(), 0)

    def wait(self, peer: int | None, waited_s: float) -> None:
        """The rank has waited for ``peer`` (ANY: for others) for so long; None: it does not any more."""
        if peer is None:
            self._words[_WAITS] = 0
            return
        self._words[_WAITS_SINCE] = time.monotonic_ns() - int(waited_s * 1e9)
        self._words[_WAITS] = peer + 2

    def mark_done(self) -> None:
        """The rank is about to end as it should."""
        self._words[_FLAGS] |= _DONE

    def mark_explained(self) -> None:
        """The rank is about to end, and has written why."""
        self._words[_FLAGS] |= _EXPLAINED

    def _add(self, phase: str, name: str) -> int:
        line = f"{phase}\t{name}".replace("\n", " ").encode() + b"\n"
        number = 0
        if self._end + len(line) <= SIZE_BYTES:
            self._memory[self._end : self._end + len(line)] = line
            self._end += len(line)
            self._words[_TABLE_BYTES] = self._end - _TABLE_START
            number = sum(1 for known in self._numbers.values() if known) + 1
        self._numbers[phase, name] = number
        return number


class BoardReader:
    """The helper's side."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE_BYTES, prot=mmap.PROT_READ)
        self._words = memoryview(self._memory).cast("q")
        self._entries: list[tuple[str, str]] = []

    @property
    def is_done(self) -> bool:
        """Whether the rank has said that it is about to end as it should."""
        return bool(self._words[_FLAGS] & _DONE)

    @property
    def is_explained(self) -> bool:
        """Whether the rank has written why it ends."""
        return bool(self._words[_FLAGS] & _EXPLAINED)

    def read(self, rank: int, host: str, process: int, stopped_s: float = 0.0) -> RankState:
        """Where the rank is now, or was when it died."""
        words, now = self._words, time.monotonic_ns()
        waits, waits_since, number = words[_WAITS], words[_WAITS_SINCE], words[_ENTRY]
        if number > len(self._entries):
            table = self._memory[_TABLE_START : _TABLE_START + words[_TABLE_BYTES]].decode(errors="replace")
            self._entries = [(phase, name) for phase, _, name in (line.partition("\t") for line in table.splitlines())]
        phase, name = self._entries[number - 1] if 0 < number <= len(self._entries) else ("at work", "")
        return RankState(
            rank=rank,
            host=host,
            process=process,
            iteration=words[_ITERATION],
            phase=phase,
            name=name,
            count=words[_COUNT],
            there_s=max(0.0, (now - words[_SINCE]) / 1e9),
            waits_for=None if waits == 0 else max(ANY, waits - 2),
            waits_s=0.0 if waits == 0 else max(0.0, (now - waits_since) / 1e9),
            stopped_s=stopped_s,
            is_done=self.is_done,
        )
