"""Which records are read by which rank, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paratrain.random import hash_key

__all__ = ["ShardedReader", "first_position"]

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


def first_position(rand_skip: int, seed: int, layer_name: str) -> int:
    """Return where to start: one of the first ``rand_skip`` records by chance, the same on every rank; 0 without
    rand_skip.
    """
    return hash_key(seed, "rand_skip", layer_name) % rand_skip if rand_skip else 0
