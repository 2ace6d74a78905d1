"""Which records are read by which rank, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from paratrain.random import hash_key, uniform_double_at

__all__ = ["ShardedReader", "ShuffledReader", "first_position"]

Positions = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ShardedReader:
    """The share of rank ``rank`` of ``size`` in an endless sequence of records.

    Position p of the sequence is record p % count of epoch p // count. The ranks take turns: sample k of rank r is
    position first + k * size + r, so that n ranks with batches of b read, together and in order, what one rank with
    batches of n * b reads. After the last record comes the first, in the middle of a batch if need be. Nothing is
    kept: any batch can be asked for at any time, by any thread.
    """

    count: int
    """Records in the database."""
    rank: int = 0
    size: int = 1
    first: int = 0
    """The position at which training starts (see :func:`first_position`)."""

    def __post_init__(self) -> None:
        assert self.count > 0 and 0 <= self.rank < self.size and self.first >= 0

    def positions(self, batch: int, batch_size: int) -> Positions:
        """The positions of batch number ``batch``, (batch_size,)."""
        samples = np.arange(batch * batch_size, (batch + 1) * batch_size, dtype=np.uint64)
        positions: Positions = samples * np.uint64(self.size) + np.uint64(self.first + self.rank)
        return positions

    def records(self, positions: Positions) -> list[int]:
        """The numbers of the records at these positions."""
        numbers: list[int] = (positions % np.uint64(self.count)).tolist()
        return numbers


@dataclass(frozen=True)
class ShuffledReader(ShardedReader):
    """The same shares of a sequence in which every epoch has an order of its own.

    Position p is record ``order[p % count]``, where the order of epoch p // count depends on (seed, name of the layer,
    epoch) and is the same on every rank: each record is read once an epoch, whatever the number of ranks. The orders
    of the epochs of the last batch are kept, so that a reader serves one thread at a time.
    """

    seed: int = 0
    layer_name: str = ""
    _orders: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict, compare=False, repr=False)

    def records(self, positions: Positions) -> list[int]:
        """The numbers of the records at these positions."""
        epochs, places = np.divmod(positions, np.uint64(self.count))
        read = np.unique(epochs).tolist()
        for epoch in self._orders.keys() - set(read):
            del self._orders[epoch]
        records = np.empty(len(positions), np.int64)
        for epoch in read:
            if epoch not in self._orders:
                self._orders[epoch] = self._order(epoch)
            here = epochs == np.uint64(epoch)
            records[here] = self._orders[epoch][places[here]]
        numbers: list[int] = records.tolist()
        return numbers

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The records of an epoch: those of the smallest random numbers first."""
        key = hash_key(self.seed, "shuffle", self.layer_name, epoch)
        return np.argsort(uniform_double_at(key, np.arange(self.count, dtype=np.uint64)), kind="stable")


def first_position(rand_skip: int, seed: int, layer_name: str) -> int:
    """Return where to start: one of the first ``rand_skip`` records by chance, the same on every rank; 0 without
    rand_skip.
    """
    return hash_key(seed, "rand_skip", layer_name) % rand_skip if rand_skip else 0
