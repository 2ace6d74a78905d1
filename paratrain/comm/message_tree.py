"""Caffe's tree: gradients come up to one root, which owns all parameters, and these go down from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part, place_among
from paratrain.comm.gradient_messages import GradientMessages
from paratrain.comm.progress import Work
from paratrain.topology.tree import Tree

__all__ = ["MessageTree"]


class MessageTree(Exchange):
    """Messages along a tree whose members are the `ranks`, all of them where None.

    A parent adds its children in the tree's order: ((own + child 0) + child 1) + ... As slices follow each other, all
    levels of the tree are busy at the same time, and the first go down while others come up. In 16 bits, a sum is rounded
    at each level.
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
        gradient_dtype: str = "float32",
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        members, member = place_among(communicator, ranks)
        parent = tree.parent[member]
        self._parent = None if parent is None else members[parent]
        self._children = [members[child] for child in tree.children[member]]
        self._messages = GradientMessages(communicator, slices, arrays.diff.dtype, gradient_dtype)

    def owned(self, index: int) -> Part:
        start, stop = self.slices[index]
        return (start, stop) if self._parent is None else (start, start)

    def sum(self, index: int) -> Work:
        tag, _ = self._tags(index)
        start, stop = self.slices[index]
        own = self.arrays.diff[start:stop]
        arriving = [self._messages.ireceive(stop - start, child, tag) for child in self._children]
        for message in arriving:
            yield message.test
            self._messages.add(message, own)
        if self._parent is None:
            self._multiply((start, stop))
        else:
            leaving = self._messages.isend(own, self._parent, tag)
            yield leaving.test
            self._messages.finish(leaving)

    def spread(self, index: int) -> Work:
        _, tag = self._tags(index)
        start, stop = self.slices[index]
        own = self.arrays.data[start:stop]
        if self._parent is not None:
            yield self.communicator.ireceive(own, self._parent, tag).test
        sends = [self.communicator.isend(own, child, tag) for child in reversed(self._children)]
        for send in sends:
            yield send.test
