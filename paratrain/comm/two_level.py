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

MakeOuter = Callable[[Sequence[Part], Sequence[int], int], Exchange]
MakeInner = Callable[[Flags, Sequence[int]], Exchange]


class TwoLevel(Exchange):
    """Each slice is cut into as many parts as every node has ranks at least; local rank l of each node works on part l.

    Within the node it sums the part over the node's ranks; then the ranks with the same l, one of each node, exchange it
    by messages: ``make_outer(parts, ranks, root_count)`` makes that exchange, in which the first `root_count` of its ranks
    own a part each. So every byte leaves a node once, and all its ranks send. The order of addition is that of the ranks
    within a node, then that of the outer exchange. Another exchange within the node comes from
    ``make_inner(flags, pieces)``, with `pieces` as for :class:`SharedSharded`.

    `roots` are the ranks that own parts, all of which are of about equal length: by default all those of which every node
    has one. Fewer are the first rank of each node, one node after the other, then the second ranks, and so on.
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
        roots: int | None = None,
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        columns = column_ranks(communicator.node_of_rank)
        node_count, local_rank = len(columns[0]), communicator.local_rank
        roots = node_count * len(columns) if roots is None else roots
        pieces = [min(node_count, roots - first) for first in range(0, roots, node_count)]
        assert 0 < len(pieces) <= len(columns), "a node has no rank for one of the roots"
        self._inner: Exchange
        if make_inner is None:
            self._inner = SharedSharded(communicator, arrays, slices, flags=flags, pieces=pieces)
        else:
            self._inner = make_inner(flags, pieces)
        parts = [self._inner.owned(index) for index in range(len(slices))]
        self._outer = None
        if local_rank < len(pieces):
            self._outer = make_outer(parts, columns[local_rank], pieces[local_rank])

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
