"""Device memory: blocks of the host's, each between guards, filled with what is no number in any type while nobody owns it."""

from __future__ import annotations

import bisect
import ctypes
import fcntl
import math
import mmap
import os
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulated.counts import counts
from simulated.devices import total_bytes
from simulated.errors import CUDARuntimeError

if TYPE_CHECKING:
    from simulated.late import Queue, Work

__all__ = [
    "Block",
    "array_at",
    "block_at",
    "free",
    "living",
    "lock",
    "malloc",
    "memory_at",
    "register",
    "side",
    "used_bytes",
]

Bytes = npt.NDArray[np.uint8]

GUARD = 4096
"""A page before and after, so that a block that other processes open begins on a page."""
_POISON = np.array([0xFFFD, 0x7FA0, 0xFFFD, 0x7FF4], np.uint16)
"""No number in any type of floating point; every other float, and each double, is one that changes when something is added."""
_CHECKED = 512
FREED_WHILE_OPEN = "simulated GPU: memory was freed that another process has open"
_GUARD_BYTES = np.tile(_POISON, _CHECKED // 8 + 1).tobytes()

lock = threading.RLock()
"""The only one: of memory, of pools, and of the queues of late streams."""


class _Side(threading.local):
    """Whose view a thread has now: the host's, or that of a device that does late work, for which memory may still be there
    that the host has given back.
    """

    is_device = False


side = _Side()
_addresses: list[int] = []
_blocks: dict[int, Block] = {}
_used: Counter[int] = Counter()


class Block:
    """``size`` bytes at ``address`` on a device, within ``raw``. ``generation`` counts the owners it has had."""

    def __init__(self, raw: Bytes, start: int, capacity: int, device: int, file: int | None = None) -> None:
        self.raw, self.start, self.capacity, self.device, self.file = raw, start, capacity, device, file
        self.address = raw.ctypes.data + start
        self.size = capacity
        self.generation = 0
        self.is_alive = True
        self.stream = 0
        self.queue: Queue | None = None
        """Of the stream in which a pool gave it."""
        self.users: set[Work] = set()
        """Late work."""
        self.is_plain = False
        """Whether it is cudaMalloc's and not a piece of a pool: only such a one has a handle for other processes."""
        self.cells: Bytes | None = None
        """What watching.py notes of its bytes."""

    def poison(self) -> None:
        """Fill it, and the guards."""
        self.raw.view(np.uint64)[...] = _POISON.view(np.uint64)

    def mend(self) -> None:
        """Write the guards again, so that what was found is not found twice."""
        stop = self.start + self.size
        for place, shift in ((self.start - _CHECKED, 0), (stop, stop % 8)):
            self.raw[place : place + _CHECKED] = np.frombuffer(_GUARD_BYTES, np.uint8)[shift:][:_CHECKED]

    def check(self, size: int | None = None) -> None:
        """Raise RuntimeError where a guard was written to; ``size`` it had when work was given that runs now."""
        size = self.size if size is None else size
        stop = self.start + size
        if self.raw[self.start - _CHECKED : self.start].tobytes() != _GUARD_BYTES[:_CHECKED]:
            where = "before"
        elif self.raw[stop : stop + _CHECKED].tobytes() != _GUARD_BYTES[stop % 8 :][:_CHECKED]:
            where = "beyond"
        else:
            return
        raise RuntimeError(f"something wrote {where} the {size:,} bytes of an array in the memory of GPU {self.device}")

    def array(
        self, offset: int, shape: Sequence[int], dtype: npt.DTypeLike, strides: Sequence[int] | None = None
    ) -> Any:
        """A numpy array on these bytes."""
        return np.ndarray(tuple(shape), dtype, self.raw.data, self.start + offset, strides)


def register(block: Block) -> None:
    """Make it known by its address."""
    with lock:
        _blocks[block.address] = block
        bisect.insort(_addresses, block.address)


def malloc(size: int, device: int, is_shared: bool) -> Block:
    """cudaMalloc; ``is_shared`` makes it memory that other processes can open. CUDARuntimeError where there is no room."""
    with lock:
        if _used[device] + size > total_bytes():
            raise CUDARuntimeError(2)
        _used[device] += size
    counts["malloc"] += 1
    length = GUARD + -(-size // 512) * 512 + GUARD
    file = None
    if is_shared:
        file = os.memfd_create("simulated-gpu")
        os.truncate(file, length)
        raw = np.frombuffer(mmap.mmap(file, length), np.uint8)
    else:
        raw = np.frombuffer(mmap.mmap(-1, length), np.uint8)
    block = Block(raw, GUARD, size, device, file)
    block.poison()
    register(block)
    return block


def free(block: Block) -> None:
    """cudaFree. Raises RuntimeError where the guards were written to. That another process still has it open is undefined in
    CUDA, and told on stderr here: it may be at an end that was not meant to be.
    """
    with lock:
        del _blocks[block.address]
        _addresses.remove(block.address)
        _used[block.device] -= block.capacity
    block.is_alive = False
    if block.file is not None:
        try:
            fcntl.flock(block.file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # others hold it shared
        except OSError:
            print(FREED_WHILE_OPEN, file=sys.stderr, flush=True)
        os.close(block.file)
        block.file = None
    block.check()
    block.poison()


def forget(block: Block) -> None:
    """Of a block that another process owns."""
    with lock:
        del _blocks[block.address]
        _addresses.remove(block.address)
    block.is_alive = False


def used_bytes(device: int) -> int:
    return _used[device]


def living() -> list[Block]:
    """All blocks that somebody owns."""
    with lock:
        return [block for block in _blocks.values() if block.is_alive]


def block_at(address: int) -> Block | None:
    """The block in which an address lies."""
    with lock:
        place = bisect.bisect_right(_addresses, address) - 1
        if place < 0:
            return None
        block = _blocks[_addresses[place]]
    return block if address < block.address + max(block.capacity, 1) else None


def memory_at(address: int, size: int) -> Bytes:
    """The bytes at an address, of a GPU or of the host. CUDARuntimeError where they are not all in one living block."""
    block = block_at(address)
    if block is None:
        if address < 4096:
            raise CUDARuntimeError(1, f"{address} is no address")
        return np.frombuffer((ctypes.c_ubyte * size).from_address(address), np.uint8)
    offset = address - block.address
    if not block.is_alive and not side.is_device:
        raise CUDARuntimeError(700, "the memory was freed")
    if offset + size > (block.capacity if side.is_device else block.size):
        raise CUDARuntimeError(1, f"{size:,} bytes from byte {offset:,} of {block.size:,}")
    return block.raw[block.start + offset :][:size]


def array_at(
    address: int, shape: Sequence[int], dtype: npt.DTypeLike, strides: Sequence[int] | None = None
) -> npt.NDArray[Any]:
    """A numpy array on the memory at an address; ``strides`` in bytes. For what stands in for libraries that take addresses."""
    dtype = np.dtype(dtype)
    if math.prod(shape) == 0:
        return np.empty(tuple(shape), dtype)
    if strides is None:
        size = math.prod(shape) * dtype.itemsize
    else:
        size = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + dtype.itemsize
    return np.ndarray(tuple(shape), dtype, memory_at(address, size).data, 0, strides)
