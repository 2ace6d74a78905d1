"""Memory of other processes: a handle names the file in memory behind a block, which is opened through /proc."""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct

import numpy as np

from simulated import devices
from simulated.errors import CUDARuntimeError
from simulated.memory import GUARD, Block, block_at, forget, register

__all__ = ["close_memory", "export_memory", "open_memory"]

_FORM = struct.Struct("<8sQqQi16s")
_PROCESS = secrets.token_bytes(16)
_opened: dict[bytes, tuple[Block, int]] = {}
_locks: dict[int, int] = {}
"""For each address the file, which is locked as long as the block is open here."""


def export_memory(address: int) -> bytes:
    """cudaIpcGetMemHandle: of a whole block of cudaMalloc. CUDARuntimeError for a piece of a pool, whose handle names another."""
    block = block_at(address)
    if block is None or not block.is_alive:
        raise CUDARuntimeError(1)
    if not block.is_plain or block.file is None:
        raise CUDARuntimeError(
            1, "memory of a pool: its handle would open the beginning of what the pool got from cudaMalloc"
        )
    device = devices.physical(block.device)
    packed = _FORM.pack(b"simgpu\0\0", os.getpid(), block.file, block.size, device, _PROCESS)
    return packed.ljust(64, b"\0")


def open_memory(handle: bytes) -> int:
    """cudaIpcOpenMemHandle: the address here. CUDARuntimeError in the process that exported it, and where it is gone."""
    mark, process, file, size, physical, owner = _FORM.unpack(handle[: _FORM.size])
    if len(handle) != 64 or mark != b"simgpu\0\0":
        raise CUDARuntimeError(1)
    if owner == _PROCESS and process == os.getpid():
        raise CUDARuntimeError(201, "a handle cannot be opened by the process that made it")
    if handle in _opened:
        block, count = _opened[handle]
        _opened[handle] = block, count + 1
        return block.address
    try:
        here = os.open(f"/proc/{process}/fd/{file}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise CUDARuntimeError(1, str(error)) from None
    device = devices.number_here(physical)
    length = os.fstat(here).st_size
    block = Block(np.frombuffer(mmap.mmap(here, length), np.uint8), GUARD, size, device)
    fcntl.flock(here, fcntl.LOCK_SH)
    _locks[block.address] = here
    register(block)
    if device != devices.current() and (devices.current(), device) not in devices._peers:
        devices._peers.add((devices.current(), device))
    _opened[handle] = block, 1
    return block.address


def close_memory(address: int) -> None:
    """cudaIpcCloseMemHandle."""
    for handle, (block, count) in _opened.items():
        if block.address == address:
            if count > 1:
                _opened[handle] = block, count - 1
            else:
                if block.users:
                    raise CUDARuntimeError(700, "memory of another process is closed while work is still to use it")
                del _opened[handle]
                forget(block)
                file = _locks.pop(address)
                fcntl.flock(file, fcntl.LOCK_UN)  # the mapping, which may live on, has it open too
                os.close(file)
            return
    raise CUDARuntimeError(1)
