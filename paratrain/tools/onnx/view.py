"""What the translation of one layer sees and may do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.layers.base import Layer
from paratrain.registry import Registry
from paratrain.tools.onnx.graph import Graph, Size

__all__ = ["TRANSLATIONS", "LayerView", "Translation", "UnsayableError", "translates"]

Array = npt.NDArray[Any]

_AXES_AS_INPUT = {"ReduceSum": 13, "ReduceMean": 18}


class UnsayableError(Exception):
    """ONNX cannot say what a layer does; the message is the reason, without the layer's name."""


@dataclass
class LayerView:
    """A layer, the values that it reads and the sizes of its blobs. Methods append nodes and return the names of values."""

    layer: Layer
    graph: Graph
    inputs: list[str]
    bottoms: list[Size]
    tops: list[Size]
    parameters: dict[tuple[int, tuple[int, ...]], str]
    """Constants that stand for parameters, by memory and shape: layers that share one share the constant."""

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output."""
        return self.add_many(op, inputs, 1, **attributes)[0]

    def add_many(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Append a node with ``count`` outputs."""
        doc = f"layer '{self.layer.name}' ({self.layer.parameter.type})"
        return self.graph.add(op, inputs, count, self.layer.name, doc, attributes).outputs

    def floats(self, what: str, values: npt.ArrayLike) -> str:
        """Enter a constant of float32."""
        return self.graph.constant(f"{self.layer.name}/{what}", values, np.float32)

    def integers(self, what: str, values: npt.ArrayLike) -> str:
        """Enter a constant of int64."""
        return self.graph.constant(f"{self.layer.name}/{what}", values, np.int64)

    def values(self, index: int) -> Array:
        """The values of parameter blob ``index``, for reading."""
        found: Array = self.layer.blobs[index].read_data(None)
        return found

    def parameter(self, index: int, shape: Sequence[int] | None = None) -> str:
        """Enter parameter blob ``index``, seen in another shape if one is given, as the constant LAYER/index."""
        blob = self.layer.blobs[index]
        wanted = blob.shape if shape is None else tuple(shape)
        key = (id(blob.data_memory), wanted)
        if key not in self.parameters:
            self.parameters[key] = self.floats(str(index), self.values(index).reshape(wanted))
        return self.parameters[key]

    def scaled(self, value: str, factor: float, what: str = "scale") -> str:
        """``value`` times a number; itself for 1."""
        return value if factor == 1 else self.add("Mul", value, self.floats(what, factor))

    def shifted(self, value: str, offset: float, what: str = "shift") -> str:
        """``value`` plus a number; itself for 0."""
        return value if offset == 0 else self.add("Add", value, self.floats(what, offset))

    def reduce(self, op: str, value: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """Append ReduceSum or ReduceMean over ``axes``, in the form of the graph's opset."""
        if self.graph.opset >= _AXES_AS_INPUT[op]:
            return self.add(op, value, self.integers("axes", list(axes)), keepdims=int(keepdims))
        return self.add(op, value, axes=list(axes), keepdims=int(keepdims))

    def reshape(self, value: str, source: Size, target: Size) -> str:
        """See ``value``, of size ``source``, in the shape of ``target``. Raises UnsayableError for two open axes that change."""
        if source.shape == target.shape and source.varies == target.varies:
            return value
        dims: list[int] = []
        for axis, (size, varies) in enumerate(zip(target.shape, target.varies, strict=True)):
            if not varies:
                dims.append(size)
            elif axis < source.rank and source.varies[axis] and source.shape[axis] == size:
                dims.append(0)
            else:
                dims.append(-1)
        if dims.count(-1) > 1:
            raise UnsayableError("several axes of its result depend on the batch; export with a fixed batch")
        if any(size == 0 for size, varies in zip(target.shape, target.varies, strict=True) if not varies):
            raise UnsayableError(f"its result {target.shape} is empty")
        return self.add("Reshape", value, self.integers("shape", dims))

    def fixed(self, size: Size, axis: int, what: str) -> int:
        """The size along ``axis``. Raises UnsayableError where it depends on the batch."""
        if size.varies[axis]:
            raise UnsayableError(f"{what} depends on the batch; export with a fixed batch")
        return size.shape[axis]

    def channels_first(self, index: int, count: int | None = None) -> str:
        """Parameter blob ``index``, one value for each channel, in a shape that broadcasts to bottom 0 (N, C, ...)."""
        channels = self.layer.blobs[index].count if count is None else count
        return self.parameter(index, (channels, *(1,) * (self.bottoms[0].rank - 2)))


Translation = Callable[[LayerView], list[str]]
TRANSLATIONS: Registry[Translation] = Registry("layer type that ONNX can say")


def translates(*types: str) -> Callable[[Translation], Translation]:
    """Return a decorator that enters a translation under the layer types that it is for."""

    def decorate(translation: Translation) -> Translation:
        for name in types:
            TRANSLATIONS.add(name, translation)
        return translation

    return decorate
