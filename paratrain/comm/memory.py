"""Where a rank's flat arrays lie: in memory that the ranks of its node share, or in its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paratrain.comm.communicator import Array, Communicator
from paratrain.comm.exchange import FlatArrays
from paratrain.comm.flags import Flags
from paratrain.comm.shared_memory import share
from paratrain.errors import CommunicationError

__all__ = ["ExchangeMemory"]


class ExchangeMemory:
    """Makes the flat arrays of this rank. All ranks of the communicator make the same calls in the same order.

    With `is_shared`, ranks of a node share memory, unless the system has none to give, which `problem` tells: then, and
    from then on, all ranks use memory of their own, and messages. One array of parameters serves a node: what one rank
    writes there, all see.
    """

    def __init__(self, communicator: Communicator, *, is_shared: bool) -> None:
        self._communicator = communicator
        self.is_shared = is_shared
        self.problem = ""
        self._data: Array = np.zeros(0)
        self._diff: Array = np.zeros(0)
        self._node_diffs: tuple[Array, ...] | None = None

    def data(self, count: int, dtype: npt.DTypeLike) -> Array:
        """The array of parameters: `count` zeros, or what other ranks of the node have written there."""
        is_first = self._communicator.local_rank == 0
        shared = self._share(count if is_first else 0, dtype)
        if shared is None:
            self._node_diffs = None
        self._data = np.zeros(count, dtype) if shared is None else shared[0]
        return self._data

    def diff(self, count: int, dtype: npt.DTypeLike) -> Array:
        """This rank's array of gradients: `count` zeros."""
        shared = self._share(count, dtype)
        self._node_diffs = None if shared is None else tuple(shared)
        self._diff = np.zeros(count, dtype) if shared is None else shared[self._communicator.local_rank]
        return self._diff

    def flags(self, slice_count: int) -> Flags:
        """Flags for so many slices, where memory is shared. Raises CommunicationError where it cannot be had."""
        shared = self._share(Flags.length(slice_count), np.int64)
        if shared is None:  # the arrays are shared by now: it is too late for messages
            raise CommunicationError(f"{self.problem}; --exchange ring needs none")
        return Flags(shared, self._communicator.local_rank)

    @property
    def arrays(self) -> FlatArrays:
        """The arrays that were made last."""
        return FlatArrays(self._data, self._diff, self._node_diffs)

    def _share(self, count: int, dtype: npt.DTypeLike) -> list[Array] | None:
        if not self.is_shared:
            return None
        found = share(self._communicator, [count], dtype)
        if isinstance(found, str):
            self.is_shared, self.problem = False, found
            return None
        return found[0]
