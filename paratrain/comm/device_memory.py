"""Where the flat arrays of a rank on a GPU lie: in blocks that its node's ranks have opened, or in blocks of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paratrain.comm.communicator import Communicator
from paratrain.comm.cuda_ipc import DeviceBlocks, share_device
from paratrain.comm.device import DeviceArray, ExchangeDevice
from paratrain.comm.device_node import NodeArrays
from paratrain.comm.flags import Flags
from paratrain.comm.shared_memory import share
from paratrain.errors import CommunicationError

__all__ = ["DeviceMemory"]


class DeviceMemory:
    """Makes the flat arrays of this rank. All ranks of the communicator make the same calls in the same order.

    With `is_shared`, ranks of a node reach each other's arrays, unless CUDA refuses, which `problem` tells: then, and from
    then on, all ranks have arrays of which the others know nothing. Raises DeviceError where the GPU has no memory left.
    """

    def __init__(self, communicator: Communicator, device: ExchangeDevice, *, is_shared: bool) -> None:
        self._communicator, self._device = communicator, device
        self.is_shared = is_shared
        self.problem = ""
        self._blocks: list[DeviceBlocks] = []
        nothing = np.zeros(0)
        self._arrays = NodeArrays(nothing, nothing)

    def data(self, count: int, dtype: npt.DTypeLike) -> DeviceArray:
        """This rank's array of parameters: `count` zeros."""
        own, node = self._make(count, dtype)
        found = self._arrays
        self._arrays = NodeArrays(own, found.diff, found.node_diffs if node else None, node)
        return own

    def diff(self, count: int, dtype: npt.DTypeLike) -> DeviceArray:
        """This rank's array of gradients: `count` zeros."""
        own, node = self._make(count, dtype)
        found = self._arrays
        self._arrays = NodeArrays(found.data, own, node, found.node_datas if node else None)
        return own

    def flags(self, slice_count: int) -> Flags:
        """Flags for so many slices, in memory of the host. Raises CommunicationError where it cannot be had."""
        found = share(self._communicator, [Flags.length(slice_count)], np.int64)
        if isinstance(found, str):
            raise CommunicationError(f"{found}; --exchange ring needs none")
        return Flags(found[0], self._communicator.local_rank)

    @property
    def arrays(self) -> NodeArrays:
        """The arrays that were made last."""
        return self._arrays

    def close(self) -> None:
        """Let go of the others' arrays, when nothing is under way; the own ones can be used as before. All ranks call it."""
        found = self._arrays
        self._arrays = NodeArrays(found.data, found.diff)
        while self._blocks:
            self._blocks.pop().close()

    def _make(self, count: int, dtype: npt.DTypeLike) -> tuple[DeviceArray, tuple[DeviceArray, ...] | None]:
        if self.is_shared:
            found = share_device(self._communicator, self._device, [count], dtype)
            if not isinstance(found, str):
                self._blocks.append(found)
                node = tuple(found.arrays[0])
                return node[self._communicator.local_rank], node
            self.is_shared, self.problem = False, found
            self.close()
        return self._device.allocate(count, dtype), None
