"""Memory that all ranks of a node see: no copy between them, and nothing left behind however they end.

A block is an anonymous file in memory (``memfd_create``), which the other ranks open through ``/proc`` and map. It has no
name, so that the kernel frees it with the last process, even if all are killed; and it is not part of ``/dev/shm``, which
containers often limit to 64 MB. What is free is looked at before, and its pages are reserved when it is made: too little
memory is an error then, instead of a SIGBUS, or the kernel's SIGKILL, at a write.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from paratrain.available_memory import available_bytes
from paratrain.comm.communicator import Array, Communicator

__all__ = ["share"]


def share(communicator: Communicator, counts: Sequence[int], dtype: npt.DTypeLike) -> list[list[Array]] | str:
    """For each of `counts`, the arrays of that many zeros of all ranks on this rank's node, in the order of the ranks.

    Element ``[i][l]`` was made by local rank l with its own ``counts[i]``, and is the same memory in every rank of the
    node. An array lives as long as somebody refers to it. All ranks of the communicator call this together, and all get
    arrays, or else all get a sentence that says why there are none.
    """
    dtype = np.dtype(dtype)
    sizes = [_padded_bytes(count * dtype.itemsize) for count in counts]
    total_bytes = sum(sizes)
    with contextlib.ExitStack() as opened:
        offer, problem = (0, 0, (0, 0)), _lacking(communicator, total_bytes)
        try:
            handle = _new_file(1 if problem else max(total_bytes, 1))
            opened.callback(os.close, handle)
            offer = (os.getpid(), handle, _identity(handle))
        except OSError as error:
            problem = f"{total_bytes:,} bytes of shared memory cannot be had: {error.strerror}"
        offers = communicator.allgather_objects((offer, tuple(counts), problem))
        maps: list[mmap.mmap] = []
        if not any(given[2] for given in offers):
            try:
                maps = [_map(*offers[rank][0]) for rank in _mates(communicator)]
            except OSError as error:
                problem = f"the shared memory of another rank of the node cannot be opened: {error.strerror}"
        problems = [
            f"rank {rank}: {found}" for rank, found in enumerate(communicator.allgather_objects(problem)) if found
        ]
        if problems:
            return problems[0]
    arrays: list[list[Array]] = [[] for _ in counts]
    for block, rank in zip(maps, _mates(communicator), strict=True):
        start = 0
        for index, count in enumerate(offers[rank][1]):
            arrays[index].append(np.frombuffer(block, dtype, count, start))
            start += _padded_bytes(count * dtype.itemsize)
    return arrays


def _mates(communicator: Communicator) -> list[int]:
    """The ranks of this rank's node, itself included."""
    nodes = communicator.node_of_rank
    return [rank for rank, node in enumerate(nodes) if node == nodes[communicator.rank]]


def _new_file(byte_count: int) -> int:
    handle = os.memfd_create("paratrain", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(handle, 0, byte_count)
    except OSError:
        os.close(handle)
        raise
    return handle


def _lacking(communicator: Communicator, byte_count: int) -> str:
    """Why so many bytes for each rank of the node are too many; empty where there is room.

    A control group's limit and the machine's memory are looked at first: where they are passed, the kernel kills.
    """
    free_bytes = available_bytes()
    wanted_bytes = byte_count * communicator.local_size
    if free_bytes is None or wanted_bytes < free_bytes:
        return ""
    return f"{wanted_bytes:,} bytes of shared memory for the ranks of this node are more than the {free_bytes:,} that are free"


def _identity(handle: int) -> tuple[int, int]:
    """What no other open file has: in another namespace of processes the same numbers name another file."""
    status = os.fstat(handle)
    return status.st_dev, status.st_ino


def _map(process: int, handle: int, identity: tuple[int, int]) -> mmap.mmap:
    opened = os.open(f"/proc/{process}/fd/{handle}", os.O_RDWR | os.O_CLOEXEC)
    try:
        if _identity(opened) != identity:
            raise FileNotFoundError(errno.ENOENT, "its process is in another namespace")
        block = mmap.mmap(opened, 0)
    finally:
        os.close(opened)
    with contextlib.suppress(OSError, AttributeError):  # large pages are fewer to look up, where the kernel gives them
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _padded_bytes(byte_count: int) -> int:
    """Arrays start on a page of their own, so that two ranks never write to one cache line."""
    return -(-byte_count // mmap.PAGESIZE) * mmap.PAGESIZE
