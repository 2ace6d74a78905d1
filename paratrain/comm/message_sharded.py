"""Several roots, as many as ranks or fewer: each owns a part of every slice, sums it, updates it and sends it to all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part, cut, place_among
from paratrain.comm.gradient_messages import GradientMessages
from paratrain.comm.progress import Work

__all__ = ["MessageSharded"]


class MessageSharded(Exchange):
    """Messages between all pairs of the `ranks` (all of them where None): each a star over its own part.

    A rank sends and receives 2 (n - 1) / n times the bytes of a slice, the least there is. Parts are added in the order
    of the ranks. With `owner_count`, only the first ranks own parts. In 16 bits,
    every gradient but the owner's is rounded once.
    """

    name: ClassVar[str] = "sharded"

    def __init__(
        self,
        communicator: Communicator,
        arrays: FlatArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        ranks: Sequence[int] | None = None,
        owner_count: int | None = None,
        gradient_dtype: str = "float32",
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        self._ranks, self._member = place_among(communicator, ranks)
        self._owner_count = len(self._ranks) if owner_count is None else owner_count
        longest = [cut(part, self._owner_count, 0) for part in self.slices]  # the first part is as long as any
        self._messages = GradientMessages(communicator, longest, arrays.diff.dtype, gradient_dtype)

    def owned(self, index: int) -> Part:
        return self._part(index, self._member)

    def sum(self, index: int) -> Work:
        diff, (tag, _) = self.arrays.diff, self._tags(index)
        start, stop = self.owned(index)
        arriving = {}
        for member, rank in self._others():
            if start < stop:
                arriving[member] = self._messages.ireceive(stop - start, rank, tag)
        sends = []
        for member, rank in self._others():
            first, last = self._part(index, member)
            if first < last:
                sends.append(self._messages.isend(diff[first:last], rank, tag))
        if start < stop:
            own = total = diff[start:stop]
            opened = None
            for member in range(len(self._ranks)):
                if member == self._member:
                    if opened is not None:
                        np.add(total, own, out=own)
                        total = own
                        self._messages.close(opened)
                    continue
                yield arriving[member].test
                if member == 0:
                    opened = self._messages.open(arriving[member])
                    total = opened[: stop - start]
                else:
                    self._messages.add(arriving[member], total)
            self._multiply((start, stop))
        for send in sends:
            yield send.test
            self._messages.finish(send)

    def spread(self, index: int) -> Work:
        data, (_, tag) = self.arrays.data, self._tags(index)
        start, stop = self.owned(index)
        requests = []
        for member, rank in self._others():
            first, last = self._part(index, member)
            if first < last:
                requests.append(self.communicator.ireceive(data[first:last], rank, tag))
            if start < stop:
                requests.append(self.communicator.isend(data[start:stop], rank, tag))
        for request in requests:
            yield request.test

    def _part(self, index: int, member: int) -> Part:
        return cut(self.slices[index], self._owner_count, member)

    def _others(self) -> list[tuple[int, int]]:
        """(member, rank) of the others, beginning after this one, so that not all send to the same at first."""
        count = len(self._ranks)
        order = [(self._member + step) % count for step in range(1, count)]
        return [(member, self._ranks[member]) for member in order]
