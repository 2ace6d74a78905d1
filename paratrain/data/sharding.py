"""Which records are read by which rank, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from paratrain.data.orders import Order, Sequential
from paratrain.random import hash_key

__all__ = ["Positions", "Samples", "ShardedReader", "first_position"]

Positions = npt.NDArray[np.uint64]


class Samples(NamedTuple):
    """What a batch is made of, in order: which records, and the number that names each use of one."""

    records: list[int]
    """The numbers of the records in their source."""
    counters: npt.NDArray[np.uint64]
    """(N,) epoch * count + record: what augmentation is keyed by, so that it depends on neither order nor ranks."""


@dataclass(frozen=True)
class ShardedReader:
    """The share of rank ``rank`` of ``size`` in an endless sequence of records.

    Position p of the sequence is place p % count of epoch p // count, and ``order`` says which record that is: record
    p % count, unless it shuffles. The ranks take turns: sample k of rank r is position first + k * size + r, so that n
    ranks with batches of b read, together and in order, what one rank with batches of n * b reads. After the last
    record of an epoch comes the first of the next, in the middle of a batch if need be: every step is a whole one on
    every rank. Any batch can be asked for at any time, by any number of threads at once.
    """

    count: int
    """Records in the source."""
    rank: int = 0
    size: int = 1
    first: int = 0
    """The position at which training starts (see :func:`first_position`)."""
    order: Order = field(default_factory=Sequential)
    """The order of the records in each epoch."""

    def __post_init__(self) -> None:
        assert self.count > 0 and 0 <= self.rank < self.size and self.first >= 0

    def positions(self, batch: int, batch_size: int) -> Positions:
        """The positions of batch number ``batch``, (batch_size,)."""
        samples = np.arange(batch * batch_size, (batch + 1) * batch_size, dtype=np.uint64)
        positions: Positions = samples * np.uint64(self.size) + np.uint64(self.first + self.rank)
        return positions

    def samples(self, batch: int, batch_size: int) -> Samples:
        """The records of batch number ``batch``, and their counters."""
        positions = self.positions(batch, batch_size)
        epochs, places = np.divmod(positions, np.uint64(self.count))
        if isinstance(self.order, Sequential):
            return Samples(places.tolist(), positions)
        if epochs[0] == epochs[-1]:
            records = self.order.records(int(epochs[0]), places)
        else:
            records = np.empty_like(places)
            for epoch in np.unique(epochs):
                here = epochs == epoch
                records[here] = self.order.records(int(epoch), places[here])
        return Samples(records.tolist(), epochs * np.uint64(self.count) + records)

    def record_at(self, position: int) -> int:
        """The record at one position, whichever rank's it is."""
        epoch, place = divmod(position, self.count)
        return int(self.order.records(epoch, np.array([place], np.uint64))[0])


def first_position(rand_skip: int, seed: int, layer_name: str) -> int:
    """Return where to start: one of the first ``rand_skip`` records by chance, the same on every rank; 0 without
    rand_skip.
    """
    return hash_key(seed, "rand_skip", layer_name) % rand_skip if rand_skip else 0
