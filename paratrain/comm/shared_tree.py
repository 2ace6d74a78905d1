"""The tree within a node that shares memory: parents add their children's slices straight out of their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.flags import Flags
from paratrain.comm.progress import Work
from paratrain.topology.tree import Tree

__all__ = ["SharedTree"]


class SharedTree(Exchange):
    """A tree over the ranks of one node, whose root owns all; `data` is one array that all see.

    A parent adds its children in the tree's order, as :class:`MessageTree` does, and so gets the same bits.
    """

    name: ClassVar[str] = "tree"
    most_slices: ClassVar[int] = 1 << 20

    def __init__(
        self,
        communicator: Communicator,
        arrays: FlatArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        tree: Tree,
        flags: Flags,
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        assert arrays.node_diffs is not None
        self._diffs = arrays.node_diffs
        self._children = tree.children[communicator.local_rank]
        self._is_root = tree.root == communicator.local_rank
        self._flags = flags

    def owned(self, index: int) -> Part:
        start, stop = self.slices[index]
        return (start, stop) if self._is_root else (start, start)

    def sum(self, index: int) -> Work:
        part = slice(*self.slices[index])
        own = self.arrays.diff[part]
        step = self._flags.next_step(Flags.READY, index)
        for child in self._children:
            yield self._flags.reached(child, Flags.READY, index, step)
            np.add(own, self._diffs[child][part], out=own)
        if self._is_root:
            self._multiply(self.slices[index])
        self._flags.announce(Flags.READY, index)

    def spread(self, index: int) -> Work:
        step = self._flags.announce(Flags.WRITTEN, index)
        yield self._flags.all_reached(Flags.WRITTEN, index, step)
