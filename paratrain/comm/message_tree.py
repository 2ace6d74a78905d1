"""Caffe's tree: gradients come up to one root, which owns all parameters, and these go down from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from paratrain.comm.buffers import Buffers
from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.progress import Work
from paratrain.topology.tree import Tree

__all__ = ["MessageTree"]


class MessageTree(Exchange):
    """Messages along a tree whose members are the `ranks`, all of them where None.

    A parent adds its children in the tree's order: ((own + child 0) + child 1) + ... As slices follow each other, all
    levels of the tree are busy at the same time, and the first go down while others come up.
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
        ranks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        members = list(range(communicator.size)) if ranks is None else list(ranks)
        member = members.index(communicator.rank)
        parent = tree.parent[member]
        self._parent = None if parent is None else members[parent]
        self._children = [members[child] for child in tree.children[member]]
        self._buffers = Buffers(max((stop - start for start, stop in slices), default=0), arrays.diff.dtype)

    def owned(self, index: int) -> Part:
        start, stop = self.slices[index]
        return (start, stop) if self._parent is None else (start, start)

    def sum(self, index: int) -> Work:
        tag, _ = self._tags(index)
        start, stop = self.slices[index]
        own = self.arrays.diff[start:stop]
        arriving = []
        for child in self._children:
            buffer = self._buffers.take()
            arriving.append((self.communicator.ireceive(buffer[: stop - start], child, tag), buffer))
        for request, buffer in arriving:
            yield request.test
            np.add(own, buffer[: stop - start], out=own)
            self._buffers.give_back(buffer)
        if self._parent is None:
            self._multiply((start, stop))
        else:
            yield self.communicator.isend(own, self._parent, tag).test

    def spread(self, index: int) -> Work:
        _, tag = self._tags(index)
        start, stop = self.slices[index]
        own = self.arrays.data[start:stop]
        if self._parent is not None:
            yield self.communicator.ireceive(own, self._parent, tag).test
        sends = [self.communicator.isend(own, child, tag) for child in self._children]
        for send in sends:
            yield send.test
