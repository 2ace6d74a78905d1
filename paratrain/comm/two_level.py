"""Several nodes: an exchange by shared memory within each, and one by messages between them, for each part of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.flags import Flags
from paratrain.comm.progress import Work
from paratrain.comm.shared_sharded import SharedSharded

__all__ = ["TwoLevel", "TwoLevelRing", "column_ranks"]

MakeOuter = Callable[[Sequence[Part], Sequence[int]], Exchange]
MakeInner = Callable[[Flags, int], Exchange]


class TwoLevel(Exchange):
    """Each slice is cut into as many parts as every node has ranks at least; local rank l of each node works on part l.

    Within the node it sums the part over the node's ranks; then the ranks with the same l, one of each node, exchange it
    by messages: ``make_outer(parts, ranks)`` makes that exchange. So every byte leaves a node once, and all its ranks
    send. The order of addition is that of the ranks within a node, then that of the outer exchange. Another exchange within
    the node, where the first ranks own one part each, comes from ``make_inner(flags, owner_count)``.
    """

    name: ClassVar[str] = "sharded"

    def __init__(
        self,
        communicator: Communicator,
        arrays: FlatArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        flags: Flags,
        make_outer: MakeOuter,
        make_inner: MakeInner | None = None,
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        columns = column_ranks(communicator.node_of_rank)
        self._inner: Exchange
        if make_inner is None:
            self._inner = SharedSharded(communicator, arrays, slices, flags=flags, owner_count=len(columns))
        else:
            self._inner = make_inner(flags, len(columns))
        parts = [self._inner.owned(index) for index in range(len(slices))]
        self._outer = None
        if communicator.local_rank < len(columns):
            self._outer = make_outer(parts, columns[communicator.local_rank])

    def owned(self, index: int) -> Part:
        stop = self.slices[index][1]
        return (stop, stop) if self._outer is None else self._outer.owned(index)

    def sum(self, index: int) -> Work:
        yield from self._inner.sum(index)
        if self._outer is not None:
            yield from self._outer.sum(index)

    def spread(self, index: int) -> Work:
        if self._outer is not None:
            yield from self._outer.spread(index)
        yield from self._inner.spread(index)

    def close(self) -> None:
        if self._outer is not None:
            self._outer.close()
        self._inner.close()


class TwoLevelRing(TwoLevel):
    """The same under the name of the exchange between the nodes, where that is a ring."""

    name: ClassVar[str] = "ring"


def column_ranks(node_of_rank: Sequence[int]) -> list[list[int]]:
    """For each local rank that every node has, the ranks of that number, one of each node."""
    of_node: dict[int, list[int]] = {}
    for rank, node in enumerate(node_of_rank):
        of_node.setdefault(node, []).append(rank)
    fewest = min(len(ranks) for ranks in of_node.values())
    return [[ranks[local] for ranks in of_node.values()] for local in range(fewest)]
