"""Ranks of one node that share memory: each sums its part straight out of the arrays of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part, Share
from paratrain.comm.flags import Flags
from paratrain.comm.progress import Work

__all__ = ["SharedSharded"]

# The elements of a piece of work, 512 KB of float32: the sum of one piece is still in the core's cache for the next rank's.
_PIECE_COUNT = 128 * 1024


class SharedSharded(Exchange):
    """Every rank of the node owns a part of every slice; `data` is one array that all see, so that nothing is spread.

    Ranks only tell each other, by flags in shared memory, that their gradients are ready to be read, and that their part
    of the parameters is written. Gradients are added in the order of the ranks. A rank's own array takes its sum: nobody
    else reads that part of it. With `pieces`, slices are cut into as many equal pieces as these are in all, and each of the
    first ranks owns as many of them, one behind the other, as is said there.
    """

    name: ClassVar[str] = "sharded"
    most_slices: int = 1 << 20
    sums_in_cache: ClassVar[bool] = True

    def __init__(
        self,
        communicator: Communicator,
        arrays: FlatArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        flags: Flags,
        pieces: Sequence[int] | None = None,
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        assert arrays.node_diffs is not None
        self._diffs = arrays.node_diffs
        self._member, self._size = communicator.local_rank, communicator.local_size
        self._share = Share(self._member, self._size, pieces)
        self._flags = flags
        self._scratch = np.empty(_PIECE_COUNT, arrays.diff.dtype)

    def owned(self, index: int) -> Part:
        return self._share.of(self.slices[index])

    def sum(self, index: int) -> Work:
        step = self._flags.announce(Flags.READY, index)
        start, stop = self.owned(index)
        if start < stop:
            yield self._flags.all_reached(Flags.READY, index, step)
            for first in range(start, stop if not self.leaves_sums else start, _PIECE_COUNT):
                self._add(first, min(first + _PIECE_COUNT, stop))

    def spread(self, index: int) -> Work:
        step = self._flags.announce(Flags.WRITTEN, index)
        yield self._flags.all_reached(Flags.WRITTEN, index, step)

    def _add(self, start: int, stop: int) -> None:
        """Put scale * (((g0 + g1) + g2) + ...) into this rank's own array."""
        own = self._diffs[self._member][start:stop]
        total = own if self._size <= 2 else self._scratch[: stop - start]
        if self._size == 1:
            self._multiply((start, stop))
            return
        np.add(self._diffs[0][start:stop], self._diffs[1][start:stop], out=total)
        for diff in self._diffs[2:]:
            np.add(total, diff[start:stop], out=total)
        if self.scale != 1.0 or total is not own:
            np.multiply(total, self.scale, out=own)
