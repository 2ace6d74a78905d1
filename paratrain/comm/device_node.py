"""Exchanges between GPUs of one node whose ranks reach each other's memory: nothing goes through the host.

Ranks tell each other by flags in shared host memory how far their GPUs are. A flag is set when the host has seen, by an event,
that the work is done: no stream ever waits for another process, so that a rank that is gone leaves no GPU waiting for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from paratrain.comm.communicator import Communicator
from paratrain.comm.device import DeviceArray, ExchangeDevice
from paratrain.comm.exchange import Exchange, FlatArrays, Part, Share
from paratrain.comm.flags import Flags
from paratrain.comm.progress import Work
from paratrain.topology.tree import Tree

__all__ = ["DeviceSharded", "DeviceTree", "NodeArrays"]


@dataclass(frozen=True)
class NodeArrays(FlatArrays):
    """Flat arrays on GPUs. Each rank has parameters of its own, and `node_datas` are those of all ranks of the node."""

    node_datas: tuple[DeviceArray, ...] | None = None


class DeviceSharded(Exchange):
    """Every rank of the node owns a part of every slice: it adds what it reads from the others' gradients, and writes its new
    parameters into the others' arrays.

    Gradients are added in the order of the ranks. `pieces` are as for :class:`SharedSharded`.
    """

    name: ClassVar[str] = "sharded"
    most_slices: int = 1 << 20

    def __init__(
        self,
        communicator: Communicator,
        arrays: NodeArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        device: ExchangeDevice,
        flags: Flags,
        pieces: Sequence[int] | None = None,
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        assert arrays.node_diffs is not None
        assert arrays.node_datas is not None
        self._device, self._flags = device, flags
        self._diffs, self._datas = arrays.node_diffs, arrays.node_datas
        self._member, self._size = communicator.local_rank, communicator.local_size
        self._share = Share(self._member, self._size, pieces)

    def owned(self, index: int) -> Part:
        return self._share.of(self.slices[index])

    def sum(self, index: int) -> Work:
        yield self._device.computed()
        step = self._flags.announce(Flags.READY, index)
        start, stop = self.owned(index)
        if start < stop:
            yield self._flags.all_reached(Flags.READY, index, step)
            if self._size > 1 or self.scale != 1.0:
                self._device.add([diff[start:stop] for diff in self._diffs], self.scale, self.arrays.diff[start:stop])
                yield self._device.done()

    def spread(self, index: int) -> Work:
        start, stop = self.owned(index)
        self._device.follow()
        if start < stop:
            for step in range(1, self._size):  # from the next rank on, so that not all write to the same one at first
                other = self._datas[(self._member + step) % self._size]
                self._device.copy(self.arrays.data[start:stop], other[start:stop])
        yield self._device.done()
        step = self._flags.announce(Flags.WRITTEN, index)
        yield self._flags.all_reached(Flags.WRITTEN, index, step)


class DeviceTree(Exchange):
    """A tree over the ranks of one node, whose root owns all: parents read their children's gradients, and write their
    parameters into the children's arrays.

    A parent adds its children in the tree's order, as :class:`MessageTree` does, and so gets the same bits.
    """

    name: ClassVar[str] = "tree"
    most_slices: int = 1 << 20

    def __init__(
        self,
        communicator: Communicator,
        arrays: NodeArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        tree: Tree,
        device: ExchangeDevice,
        flags: Flags,
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        assert arrays.node_diffs is not None
        assert arrays.node_datas is not None
        self._device, self._flags = device, flags
        self._diffs, self._datas = arrays.node_diffs, arrays.node_datas
        self._parent = tree.parent[communicator.local_rank]
        self._children = tree.children[communicator.local_rank]

    def owned(self, index: int) -> Part:
        start, stop = self.slices[index]
        return (start, stop) if self._parent is None else (start, start)

    def sum(self, index: int) -> Work:
        part = slice(*self.slices[index])
        own = self.arrays.diff[part]
        yield self._device.computed()
        step = self._flags.next_step(Flags.READY, index)
        for child in self._children:
            yield self._flags.reached(child, Flags.READY, index, step)
            self._device.add([own, self._diffs[child][part]], 1.0, own)
        if self._parent is None and self.scale != 1.0:
            self._device.add([own], self.scale, own)
        yield self._device.done()
        self._flags.announce(Flags.READY, index)

    def spread(self, index: int) -> Work:
        part = slice(*self.slices[index])
        if self._parent is None:
            self._device.follow()
        else:
            step = self._flags.next_step(Flags.WRITTEN, index)
            yield self._flags.reached(self._parent, Flags.WRITTEN, index, step)
        for child in reversed(self._children):
            self._device.copy(self.arrays.data[part], self._datas[child][part])
        yield self._device.done()
        step = self._flags.announce(Flags.WRITTEN, index)
        yield self._flags.all_reached(Flags.WRITTEN, index, step)
