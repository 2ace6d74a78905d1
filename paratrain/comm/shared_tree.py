"""The tree whose parents add their children's slices straight out of their arrays, where they are on the same node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.flags import Flags
from paratrain.comm.gradient_messages import GradientMessages
from paratrain.comm.progress import Work
from paratrain.topology.tree import Tree

__all__ = ["SharedTree"]


class SharedTree(Exchange):
    """A tree in which a parent reads the arrays of its children on its own node, and gets messages of the others.

    The root owns all; `data` is one array that all ranks of a node see. Parameters come to each node once, to that of its
    ranks which is nearest to the root. With a tree that enters every node once, as planned ones do, gradients leave each node
    once as well; others are slower, and as right. The order of addition is that of the tree, so that the bits are those of
    :class:`MessageTree`, unless messages carry 16 bits: then sums are rounded only where they leave a node.
    """

    name: ClassVar[str] = "tree"

    def __init__(
        self,
        communicator: Communicator,
        arrays: FlatArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        tree: Tree,
        flags: Flags,
        gradient_dtype: str = "float32",
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        assert arrays.node_diffs is not None
        if communicator.local_size == communicator.size:
            self.most_slices = 1 << 20  # nothing is sent
        self._diffs = arrays.node_diffs
        self._flags = flags
        nodes = communicator.node_of_rank
        local_ranks = [nodes[:rank].count(node) for rank, node in enumerate(nodes)]
        first_of_node: dict[int, int] = {}
        for rank in tree.top_down():
            first_of_node.setdefault(nodes[rank], rank)
        rank, node = communicator.rank, nodes[communicator.rank]
        self._parent = tree.parent[rank]
        self._parent_is_near = self._parent is not None and nodes[self._parent] == node
        # (rank, its place on this node or None if it is elsewhere)
        self._children = [
            (child, local_ranks[child] if nodes[child] == node else None) for child in tree.children[rank]
        ]
        self._first, self._is_first = local_ranks[first_of_node[node]], first_of_node[node] == rank
        self._receivers = [
            child for child, near in reversed(self._children) if near is None and first_of_node[nodes[child]] == child
        ]
        sends_or_adds = (self._parent is not None and not self._parent_is_near) or any(
            near is None for _, near in self._children
        )
        self._messages = GradientMessages(
            communicator, slices if sends_or_adds else (), arrays.diff.dtype, gradient_dtype
        )

    def owned(self, index: int) -> Part:
        start, stop = self.slices[index]
        return (start, stop) if self._parent is None else (start, start)

    def sum(self, index: int) -> Work:
        tag, _ = self._tags(index)
        start, stop = self.slices[index]
        own = self.arrays.diff[start:stop]
        step = self._flags.next_step(Flags.READY, index)
        arriving = {
            child: self._messages.ireceive(stop - start, child, tag) for child, near in self._children if near is None
        }
        for child, near in self._children:
            if near is not None:
                yield self._flags.reached(near, Flags.READY, index, step)
                np.add(own, self._diffs[near][start:stop], out=own)
            else:
                yield arriving[child].test
                self._messages.add(arriving[child], own)
        if self._parent is None:
            self._multiply((start, stop))
        elif not self._parent_is_near:
            leaving = self._messages.isend(own, self._parent, tag)
            yield leaving.test
            self._messages.finish(leaving)
        self._flags.announce(Flags.READY, index)

    def spread(self, index: int) -> Work:
        _, tag = self._tags(index)
        data = self.arrays.data[slice(*self.slices[index])]
        if not self._is_first:
            if self._receivers:
                step = self._flags.next_step(Flags.WRITTEN, index)
                yield self._flags.reached(self._first, Flags.WRITTEN, index, step)
        elif self._parent is not None:
            yield self.communicator.ireceive(data, self._parent, tag).test
        step = self._flags.announce(Flags.WRITTEN, index)
        sends = [self.communicator.isend(data, child, tag) for child in self._receivers]
        for send in sends:
            yield send.test
        yield self._flags.all_reached(Flags.WRITTEN, index, step)
