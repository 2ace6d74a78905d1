"""SIMULATED_GPU_CHECKS=1: what kernels may use is told to shim/watch.h before each launch, and lines are found for what it tells.

SIMULATED_GPU_ORDER (drawn, upwards, downwards, shuffled) is the order in which blocks run, and threads between two barriers;
SIMULATED_GPU_SEED (0) another one of those that are drawn or shuffled.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from simulated import memory
from simulated.memory import Block

__all__ = ["Extent", "explained", "extents_of", "is_on", "set_order", "watch"]

_ORDERS = ("drawn", "upwards", "downwards", "shuffled")
_CELL_BYTES = 20
_MOST_WATCHED = 64 << 20
"""Bytes of a block up to which races are looked for."""
_phase = 1
"""Goes on from launch to launch, so that cells need not be cleared."""
_PLACE = re.compile(r"\[\+(0x[0-9a-f]+)\]")

runs_last_only = False
"""Whether kernels run the last of their blocks only, for tests of large arrays."""

Extent = tuple[int, int]


@functools.cache
def is_on() -> bool:
    return os.environ.get("SIMULATED_GPU_CHECKS") == "1"


def set_order(library: Any) -> None:
    """Of a library that has just been loaded."""
    name = os.environ.get("SIMULATED_GPU_ORDER", "drawn")
    if name not in _ORDERS:
        raise ValueError(f"SIMULATED_GPU_ORDER is one of {', '.join(_ORDERS)}; found {name}")
    seed = int(os.environ.get("SIMULATED_GPU_SEED", "0"))
    library.simulated_set_order(_ORDERS.index(name), ctypes.c_ulonglong(seed))


def extents_of(arguments: Sequence[Any]) -> list[Extent]:
    """What a kernel was given: where the bytes of its arrays begin and end; of what are addresses only, those of their blocks."""
    extents = []
    for argument in arguments:
        if hasattr(getattr(argument, "data", None), "ptr"):
            pairs = list(zip(argument.shape, argument.strides, strict=True))
            ends = [
                argument.data.ptr + sum((count - 1) * step for count, step in pairs if step * sign > 0)
                for sign in (-1, 1)
            ]
            extents += [(ends[0], ends[1] + argument.dtype.itemsize)] if argument.size else []
        elif hasattr(argument, "ptr") or isinstance(argument, np.uint64):
            block = memory.block_at(int(getattr(argument, "ptr", argument)))
            extents += [] if block is None else [(block.address, block.address + block.size)]
    return extents


@contextlib.contextmanager
def watch(
    library: Any, used: Sequence[tuple[Block, int]], extents: Sequence[Extent], block_count: int
) -> Iterator[None]:
    """While a kernel runs that was given ``used``, blocks with their sizes then, of which it may use ``extents``; others may be
    used as far as they go. Nothing unless checks are asked for.
    """
    global _phase
    if not is_on():
        yield
        return
    sizes = {block.address: (block, block.size) for block in memory.living()}
    sizes.update({block.address: (block, size) for block, size in used})
    rows, parts = [], []
    for address, (block, size) in sorted(sizes.items()):
        own = sorted({extent for extent in extents if address <= extent[0] < address + max(block.capacity, 1)})
        rows.append((address, address + size, len(parts), len(own), _cells(block)))
        parts += own
    table, part_table = np.array(rows, np.uint64), np.array([*parts, (0, 0)], np.uint64)
    released = np.zeros(block_count, np.uint32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (table, part_table, released)]
    library.simulated_run_last_only(int(runs_last_only))
    library.simulated_watch(pointers[0], ctypes.c_ulonglong(len(rows)), *pointers[1:], ctypes.c_uint(_phase + 1))
    yield
    library.simulated_end_watch.restype = ctypes.c_uint
    _phase = library.simulated_end_watch() + 1


def _cells(block: Block) -> int:
    """The address of what is noted of each byte of a block, 0 for a large one."""
    if block.capacity > _MOST_WATCHED:
        return 0
    if block.cells is None:
        block.cells = np.frombuffer(mmap.mmap(-1, _CELL_BYTES * max(block.capacity, 1)), np.uint8)
    return int(block.cells.ctypes.data)


def explained(problem: str, library: Any) -> str:
    """With the file and the line in the place of where it is in the library, if that can be found out."""
    found = _PLACE.search(problem)
    if found is None or shutil.which("addr2line") is None:
        return problem
    command = ["addr2line", "-i", "-s", "-e", library._name, found[1]]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
    return problem.replace(found[0], " in ".join(line for line in lines if line))
