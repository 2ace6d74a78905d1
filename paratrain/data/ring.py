"""Blob memory that shows the arrays of a ring in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob.synced_memory import Device, HostArray, SyncedMemory

__all__ = ["RingMemory"]


class RingMemory:
    """A blob's memory that is one of several, in turn: what was put into a ring is shown without copying it.

    It is a :class:`paratrain.blob.Memory`; whoever shares it sees the turn too. Each place of the ring keeps its own
    host and device arrays.
    """

    def __init__(self, places: Sequence[SyncedMemory]) -> None:
        self._places = list(places)
        self._current = places[0]
        self.version = 0

    def replace(self, place: int, memory: SyncedMemory) -> None:
        """Put other memory, perhaps of another size, into a place that is not shown now."""
        self._places[place] = memory

    def show(self, place: int) -> None:
        """Turn to a place, whose host array has been written."""
        self._current = self._places[place]
        self._current.note_places((True, False, False))  # whatever lies on a device belongs to an earlier batch
        self.version += 1

    @property
    def count(self) -> int:
        return self._current.count

    @property
    def dtype(self) -> Any:
        return self._current.dtype

    def host(self) -> HostArray:
        return self._current.host()

    @property
    def arrangement(self) -> None:
        """None: batches come in the plain order."""
        return None

    def mutable_host(self) -> HostArray:
        self.version += 1
        return self._current.mutable_host()

    def device(self, device: Device) -> Any:
        return self._current.device(device)

    def mutable_device(self, device: Device) -> Any:
        self.version += 1
        return self._current.mutable_device(device)
