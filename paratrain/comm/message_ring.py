"""The ring: every rank owns a part of every slice, and talks only to its two neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part, cut, place_among
from paratrain.comm.gradient_messages import GradientMessages
from paratrain.comm.progress import Work

__all__ = ["MessageRing"]


class MessageRing(Exchange):
    """Messages to the next of the `ranks` (all of them where None), from the last one to the first.

    In n - 1 rounds the sum of each part travels once around and ends at its owner; in n - 1 more the parameters do. The
    bytes are those of :class:`MessageSharded`; on links that all ranks have for themselves the ring needs no switch
    between them. The part of member m is added as g[m + 1] + g[m + 2] + ... + g[m], counted around the ring. In 16 bits,
    the sum is rounded in each of the n - 1 rounds.
    """

    name: ClassVar[str] = "ring"

    def __init__(
        self,
        communicator: Communicator,
        arrays: FlatArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        ranks: Sequence[int] | None = None,
        gradient_dtype: str = "float32",
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        members, self._member = place_among(communicator, ranks)
        self._size = len(members)
        self._next = members[(self._member + 1) % self._size]
        self._previous = members[self._member - 1]
        longest = [cut(part, self._size, 0) for part in self.slices]  # the first piece is as long as any
        self._messages = GradientMessages(communicator, longest, arrays.diff.dtype, gradient_dtype)

    def owned(self, index: int) -> Part:
        return self._part(index, self._member)

    def sum(self, index: int) -> Work:
        diff, (tag, _) = self.arrays.diff, self._tags(index)
        for distance in range(1, self._size):
            sent, received = self._part(index, self._member - distance), self._part(index, self._member - distance - 1)
            arriving = self._messages.ireceive(received[1] - received[0], self._previous, tag)
            leaving = self._messages.isend(diff[slice(*sent)], self._next, tag)
            yield arriving.test
            self._messages.add(arriving, diff[slice(*received)])
            yield leaving.test
            self._messages.finish(leaving)
        self._multiply(self.owned(index))

    def spread(self, index: int) -> Work:
        data, (_, tag) = self.arrays.data, self._tags(index)
        for distance in range(self._size - 1):
            sent, received = self._part(index, self._member - distance), self._part(index, self._member - distance - 1)
            arriving = self.communicator.ireceive(data[slice(*received)], self._previous, tag)
            leaving = self.communicator.isend(data[slice(*sent)], self._next, tag)
            yield arriving.test
            yield leaving.test

    def _part(self, index: int, member: int) -> Part:
        return cut(self.slices[index], self._size, member % self._size)
