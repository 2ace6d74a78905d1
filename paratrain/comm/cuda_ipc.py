"""Memory on the GPUs of a node that all its ranks reach, by CUDA's handles for other processes.

A handle names a whole block of cudaMalloc, so that each rank has one block for all the arrays that are made together. A block
must not be freed while another process has it open, which CUDA leaves undefined: ranks close what they have opened, meet, and
only then let go of their own. Ranks that are threads of one process need no handles: CUDA refuses them there.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paratrain.comm.communicator import Communicator
from paratrain.comm.device import DeviceArray, ExchangeDevice
from paratrain.errors import DeviceError

__all__ = ["DeviceBlocks", "share_device"]

# Arrays within a block start at multiples of this many elements.
_ALIGNMENT = 64

# Blocks of this process on their way to its other ranks.
_local: dict[str, DeviceArray] = {}


@dataclass(frozen=True)
class _Offer:
    process: str
    token: str
    handle: bytes
    counts: tuple[int, ...]


class DeviceBlocks:
    """The blocks of a node's ranks. `arrays[i][l]` is array i of local rank l."""

    def __init__(
        self,
        communicator: Communicator,
        device: ExchangeDevice,
        arrays: list[list[DeviceArray]],
        opened: list[DeviceArray],
    ) -> None:
        self._communicator, self._device = communicator, device
        self.arrays = arrays
        self._opened: list[DeviceArray] | None = opened

    def close(self) -> None:
        """Close what this rank has opened; no array but its own may be used any more. All ranks call it; twice is harmless.

        Returns when all have closed: whoever has no more use for its own array may then forget it.
        """
        if self._opened is None:
            return
        self._device.synchronize()
        for array in self._opened:
            self._device.close(array)
        self._opened = None
        self._communicator.barrier()
        self.arrays = []


def share_device(
    communicator: Communicator, device: ExchangeDevice, counts: Sequence[int], dtype: npt.DTypeLike
) -> DeviceBlocks | str:
    """For each of `counts`, the arrays of that many zeros of all ranks on this rank's node, each on its rank's GPU.

    All ranks of the communicator call this together, and all get arrays, or else all get a sentence that says why there are
    none; nothing is left open then.
    """
    dtype = np.dtype(dtype)
    nodes = communicator.node_of_rank
    mates = [rank for rank, node in enumerate(nodes) if node == nodes[communicator.rank]]
    token, own, handle, problem = secrets.token_hex(8), None, b"", ""
    try:
        own = device.allocate(max(sum(map(_padded, counts)), 1), dtype)
        handle = device.export(own) if len(mates) > 1 else b""
    except DeviceError as error:
        problem = f"{device.description} gives no memory to other processes: {error}"
    _local[token] = own
    opened: list[DeviceArray] = []
    try:
        offers = communicator.allgather_objects((_Offer(device.process, token, handle, tuple(counts)), problem))
        blocks: list[DeviceArray] = []
        if not any(found for _, found in offers):
            try:
                for rank in mates:
                    blocks.append(own if rank == communicator.rank else _open(device, offers[rank][0], dtype, opened))
            except DeviceError as error:
                problem = f"{device.description} cannot use the memory of rank {rank}'s GPU: {error}"
        problems = [
            f"rank {rank}: {found}" for rank, found in enumerate(communicator.allgather_objects(problem)) if found
        ]
    finally:
        del _local[token]
    if problems:
        DeviceBlocks(communicator, device, [], opened).close()
        return problems[0]
    arrays: list[list[DeviceArray]] = [[] for _ in counts]
    for block, rank in zip(blocks, mates, strict=True):
        start = 0
        for index, count in enumerate(offers[rank][0].counts):
            arrays[index].append(block[start : start + count])
            start += _padded(count)
    return DeviceBlocks(communicator, device, arrays, opened)


def _open(device: ExchangeDevice, offer: _Offer, dtype: np.dtype[np.generic], opened: list[DeviceArray]) -> DeviceArray:
    if offer.process == device.process:
        block = _local[offer.token]
        device.reach(block)
        return block
    block = device.open(offer.handle, max(sum(map(_padded, offer.counts)), 1), dtype)
    opened.append(block)
    return block


def _padded(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
