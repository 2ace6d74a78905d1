"""Where batches that are read ahead are filled, and how the tops of a data layer show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob, SyncedMemory
from paratrain.data.loader import BatchLoader
from paratrain.data.ring import RingMemory

__all__ = ["BatchRing", "HostRing", "part_of"]


class BatchRing(Protocol):
    """Places for batches, each filled by threads in ``piece_count`` pieces, as equal as can be, and then shown."""

    piece_count: int
    bad_counts: list[list[int]]
    """Of the batch in each place, and each piece, the records that are bad."""

    def fill(self, batch: int, piece: int, place: int) -> None:
        """Read a piece of batch number ``batch`` into a place, which takes the shape of its images."""

    def lend(self, tops: Sequence[Blob]) -> None:
        """Let the tops, images and perhaps labels, show what lies in the ring without copying it, if it can be so shown."""

    def show(self, place: int, tops: Sequence[Blob]) -> tuple[tuple[int, ...], ...]:
        """Put the batch of a place, which is filled, into the tops; return the shapes of its images and labels."""

    def close(self) -> None:
        """End what is still on its way to a place, once no thread fills any."""


def part_of(count: int, piece: int, piece_count: int) -> slice:
    """The images of one of the pieces of a batch of ``count``."""
    return slice(count * piece // piece_count, count * (piece + 1) // piece_count)


class HostRing:
    """Arrays on the host for every place, images first, then labels; the tops show them without a copy."""

    def __init__(
        self,
        loader: BatchLoader,
        shapes: tuple[tuple[int, ...], ...],
        dtype: np.dtype[Any],
        place_count: int,
        piece_count: int,
    ) -> None:
        self._loader = loader
        self.piece_count = piece_count
        self.bad_counts = [[0] * piece_count for _ in range(place_count)]
        self.places = [[np.zeros(shape, dtype) for shape in shapes] for _ in range(place_count)]
        self.memories = [RingMemory([_memory(array) for array in column]) for column in zip(*self.places, strict=True)]

    def lend(self, tops: Sequence[Blob]) -> None:
        for blob, memory in zip(tops, self.memories, strict=False):
            blob.use_memory(data=memory)

    def show(self, place: int, tops: Sequence[Blob]) -> tuple[tuple[int, ...], ...]:
        arrays = self.places[place]
        for blob, memory, array in zip(tops, self.memories, arrays, strict=False):
            memory.show(place)
            if blob.shape != array.shape:
                blob.reshape(*array.shape)
            if blob.data_memory is not memory:  # it keeps its arrays, or the net has moved it
                blob.write_data(None)[...] = array
        return tuple(array.shape for array in arrays)

    def fill(self, batch: int, piece: int, place: int) -> None:
        arrays = self.places[place]
        count = len(arrays[0])
        part = part_of(count, piece, self.piece_count)
        shape = (count, *self._loader.shape_of(batch))
        if arrays[0].shape != shape:
            arrays[0] = np.zeros(shape, arrays[0].dtype)
            self.memories[0].replace(place, _memory(arrays[0]))
        self.bad_counts[place][piece] = self._loader.fill(batch, arrays[0], arrays[1], part)

    def close(self) -> None:
        """Nothing: all has arrived when it is filled."""


def _memory(array: npt.NDArray[Any]) -> SyncedMemory:
    return SyncedMemory(array.size, array.dtype, host=array.reshape(-1))
