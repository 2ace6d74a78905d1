"""Sums of arrays by oneDNN, value by value, with a ReLU behind."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.names import Algorithm, Argument
from paratrain.backends.onednn.primitive import Array, Descriptor, Primitive, best

__all__ = ["OneDnnSum"]


class OneDnnSum:
    """y = the sum of two or more flat arrays of ``count`` values, in order, that all lie in the same layout.

    oneDNN's own ``sum`` has plain loops only: these are ``binary`` primitives, which use its threads.
    """

    def __init__(self, arranger: Arranger, count: int) -> None:
        self._arranger = arranger
        self._layout = arranger.plain((count,))
        self._built: dict[float | None, Primitive] = {}

    def run(self, arrays: Sequence[Array], y: Array, relu_slope: float | None = None) -> None:
        """Write y, with ``relu_slope`` followed by a ReLU of this negative slope; y may be the first of the arrays."""
        total = arrays[0]
        for index, array in enumerate(arrays[1:], start=2):
            self._primitive(relu_slope if index == len(arrays) else None).run(total, array, y)
            total = y

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        return [primitive.implementation for primitive in self._built.values()]

    def _primitive(self, relu_slope: float | None) -> Primitive:
        primitive = self._built.get(relu_slope)
        if primitive is None:
            layout, engine = self._layout, self._arranger.engine
            descriptor = Descriptor(
                engine, "binary", Algorithm.BINARY_ADD, layout, layout, layout, relu_slope=relu_slope
            )
            primitive = Primitive(best([descriptor]), Argument.SOURCE, Argument.SOURCE_1, Argument.DESTINATION)
            self._built[relu_slope] = primitive
        return primitive
