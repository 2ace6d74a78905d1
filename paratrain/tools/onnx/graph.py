"""A graph of ONNX nodes while it is being written: plain values, no library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Graph", "Node", "Size"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Size:
    """The shape of a blob, and which of its axes change with the batch, where that is left open."""

    shape: tuple[int, ...]
    varies: tuple[bool, ...]

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def joined(self, *groups: Sequence[int]) -> Size:
        """The size with each of the ``groups`` of neighbouring axes as one; an empty group is an axis of 1."""
        shape = tuple(int(np.prod([self.shape[axis] for axis in group], dtype=np.int64)) for group in groups)
        return Size(shape, tuple(any(self.varies[axis] for axis in group) for group in groups))


@dataclass
class Node:
    """One operation; names of values are unique in the graph, and renamed when it is finished."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    name: str
    doc: str


@dataclass
class Graph:
    """Nodes in the order in which they run, and the constants that they read."""

    opset: int
    reserved: set[str]
    """Names that are kept for blobs."""
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, Size] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def unique(self, wanted: str) -> str:
        """Return ``wanted``, or the first of ``wanted_2``, ``wanted_3`` ... that no value and no blob is called."""
        name, number = wanted, 1
        while name in self._taken or name in self.reserved:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def add(self, op: str, inputs: Sequence[str], count: int, owner: str, doc: str, attributes: dict[str, Any]) -> Node:
        """Append a node with ``count`` outputs. ``owner`` is the layer's name."""
        outputs = [self.unique(f"{owner}/{op}") for _ in range(count)]
        node = Node(op, list(inputs), outputs, attributes, owner, doc)
        self.nodes.append(node)
        return node

    def constant(self, wanted: str, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Enter a constant and return its name."""
        name = self.unique(wanted)
        # In one piece, and of the shape that was given: ascontiguousarray would give a number an axis.
        self.constants[name] = np.asarray(values, dtype=dtype, order="C")
        return name

    def prune(self, outputs: Iterable[str]) -> None:
        """Drop the nodes, constants and inputs that no output needs."""
        needed = set(outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: values for name, values in self.constants.items() if name in needed}
        self.inputs = {name: size for name, size in self.inputs.items() if name in needed}

    def rename(self, names: dict[str, str]) -> None:
        """Give values other names."""
        for node in self.nodes:
            node.inputs = [names.get(name, name) for name in node.inputs]
            node.outputs = [names.get(name, name) for name in node.outputs]

    def name_nodes(self) -> None:
        """Name each node after its layer, with the operation behind it where the layer has several."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.name] = counts.get(node.name, 0) + 1
        taken = {owner for owner, count in counts.items() if count == 1}
        for node in self.nodes:
            if counts[node.name] > 1:
                wanted = name = f"{node.name}/{node.op}"
                number = 1
                while name in taken:
                    number += 1
                    name = f"{wanted}_{number}"
                taken.add(name)
                node.name = name
