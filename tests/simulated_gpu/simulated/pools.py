"""CuPy's memory pool: blocks are kept when they are given back, by size."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any

from simulated import late, memory
from simulated.counts import counts
from simulated.devices import current
from simulated.errors import CUDARuntimeError, OutOfMemoryError
from simulated.memory import Block, lock
from simulated.streams import current_stream, forbid_in_capture, queue_of

__all__ = ["MemoryPool", "PooledMemory"]

_UNIT = 512


class PooledMemory:
    """A piece of a pool, until the last array on it is gone."""

    def __init__(self, pool: MemoryPool, block: Block) -> None:
        self._pool, self.block = pool, block
        self.ptr, self.size, self.device_id = block.address, block.size, block.device

    def __del__(self) -> None:
        self._pool.give_back(self.block)


class MemoryPool:
    """Of all devices; what it tells of itself is told of the current one."""

    def __init__(self, allocator: Any = None) -> None:
        self._free: defaultdict[tuple[int, int, int], list[Block]] = defaultdict(list)
        """By device, size, and the stream (of late ones) in which they were given."""
        self._used: defaultdict[int, int] = defaultdict(int)
        self._total: defaultdict[int, int] = defaultdict(int)
        self._limit: defaultdict[int, int] = defaultdict(int)

    def malloc(self, size: int) -> Any:
        """Return a MemoryPointer to ``size`` bytes. OutOfMemoryError; RuntimeError while the stream captures."""
        from cupy.cuda.memory import Memory, MemoryPointer

        forbid_in_capture("allocation")
        if size == 0:
            return MemoryPointer(Memory(0), 0)
        counts["allocate"] += 1
        device, capacity = current(), -(-size // _UNIT) * _UNIT
        stream = current_stream() if late.is_on() else 0
        with lock:
            blocks = self._free[device, capacity, stream]
            block = blocks.pop() if blocks else self._new(device, capacity)
            self._used[device] += capacity
            block.stream = stream
            block.queue = queue_of(stream) if late.is_on() else None
        block.size, block.is_alive = size, True
        block.generation += 1
        return MemoryPointer(PooledMemory(self, block), 0)

    def _new(self, device: int, capacity: int) -> Block:
        limit = self._limit[device]
        for attempt in range(2):
            if not limit or self._total[device] + capacity <= limit:
                try:
                    block = memory.malloc(capacity, device, is_shared=False)
                except CUDARuntimeError:
                    pass
                else:
                    self._total[device] += capacity
                    return block
            if attempt == 0:
                self.free_all_blocks()
        raise OutOfMemoryError(capacity, self._total[device], limit)

    def give_back(self, block: Block) -> None:
        """Keep a block whose last array is gone. RuntimeError where its guards were written to."""
        block.is_alive = False
        try:
            if late.is_on() and block.queue is not None:
                late.retire(block, block.queue, functools.partial(_end, block, block.size))
            else:
                _end(block, block.size)
        finally:
            with lock:  # from here on another thread may take it
                self._used[block.device] -= block.capacity
                self._free[block.device, block.capacity, block.stream].append(block)

    def free_all_blocks(self, stream: Any = None) -> None:
        device = current()
        with lock:
            for (owner, capacity, _), blocks in list(self._free.items()):
                while owner == device and blocks:
                    late.free(blocks.pop())
                    self._total[device] -= capacity

    def free_all_free(self) -> None:
        self.free_all_blocks()

    def n_free_blocks(self) -> int:
        return sum(len(blocks) for (device, _, _), blocks in self._free.items() if device == current())

    def used_bytes(self) -> int:
        return self._used[current()]

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()

    def total_bytes(self) -> int:
        return self._total[current()]

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        from simulated.devices import total_bytes

        assert (size is None) != (fraction is None)
        self._limit[current()] = int(total_bytes() * fraction) if size is None else size  # type: ignore[operator]

    def get_limit(self) -> int:
        return self._limit[current()]


def _end(block: Block, size: int) -> None:
    """The end of what it held. RuntimeError where its guards were written to."""
    try:
        block.check(size)
    finally:
        block.poison()
