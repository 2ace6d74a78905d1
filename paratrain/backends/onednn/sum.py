"""Sums of arrays by oneDNN, value by value, with a ReLU behind."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.names import Algorithm, Argument, DataType
from paratrain.backends.onednn.primitive import Array, Descriptor, Primitive, added_argument, best

__all__ = ["OneDnnSum"]


class OneDnnSum:
    """y = the sum of two or more flat arrays of ``count`` values of one type, in order, that all lie in the same layout.

    oneDNN's own ``sum`` has plain loops only: these are ``binary`` primitives, which use its threads. Sums of bfloat16 are one
    primitive, which adds in float32 and rounds once.
    """

    def __init__(self, arranger: Arranger, count: int, dtype: DataType = DataType.F32) -> None:
        self._arranger = arranger
        self._layout = Layout.plain(arranger.engine.library, (count,), dtype)
        self._built: dict[tuple[int, float | None], Primitive] = {}

    def run(self, arrays: Sequence[Array], y: Array, relu_slope: float | None = None) -> None:
        """Write y, with ``relu_slope`` followed by a ReLU of this negative slope; y may be the first of the arrays."""
        if self._layout.dtype != DataType.F32:
            self._primitive(len(arrays), relu_slope).run(*arrays, y)
            return
        total = arrays[0]
        for index, array in enumerate(arrays[1:], start=2):
            self._primitive(2, relu_slope if index == len(arrays) else None).run(total, array, y)
            total = y

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        return [primitive.implementation for primitive in self._built.values()]

    def _primitive(self, count: int, relu_slope: float | None) -> Primitive:
        """The sum of so many arrays."""
        primitive = self._built.get((count, relu_slope))
        if primitive is None:
            layout, more = self._layout, count - 2
            descriptor = Descriptor(
                self._arranger.engine,
                "binary",
                Algorithm.BINARY_ADD,
                layout,
                layout,
                layout,
                added=[layout] * more,
                relu_slope=relu_slope,
            )
            arguments = [Argument.SOURCE, Argument.SOURCE_1, *map(added_argument, range(more)), Argument.DESTINATION]
            primitive = self._built[count, relu_slope] = Primitive(best([descriptor]), *arguments)
        return primitive
