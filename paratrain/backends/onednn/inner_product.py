"""Inner products by oneDNN, all of them on plain arrays."""

from __future__ import annotations

import numpy as np

from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import Argument, PropKind
from paratrain.backends.onednn.primitive import Array, Descriptor, Primitive, best

__all__ = ["OneDnnInnerProduct"]


class OneDnnInnerProduct:
    """y = x W^T + b and its gradients: x (samples, inputs), y (samples, outputs), W (outputs, inputs) or, where it
    ``is_transposed``, (inputs, outputs). Every array is plain; W is never copied into another layout.

    Raises UnsupportedError where oneDNN has no kernel.
    """

    def __init__(
        self, arranger: Arranger, samples: int, inputs: int, outputs: int, is_transposed: bool, has_bias: bool
    ) -> None:
        self._engine = arranger.engine
        self._is_transposed, self._has_bias = is_transposed, has_bias
        library, plain = arranger.engine.library, arranger.plain

        def turned(rows: int, columns: int) -> Layout:
            """A plain (columns, rows) array, seen as (rows, columns)."""
            return Layout.strided(library, (rows, columns), (1, rows))

        self._bias = plain((1, outputs)) if has_bias else None
        self._x, self._y = plain((samples, inputs)), plain((samples, outputs))
        x_turned, y_turned = turned(inputs, samples), turned(outputs, samples)
        if is_transposed:
            self._factor = plain((inputs, outputs))
            weights_diff = (x_turned, self._y, plain((inputs, outputs)))
        else:
            self._factor = turned(inputs, outputs)
            weights_diff = (y_turned, self._x, plain((outputs, inputs)))
        self._forwards: dict[float | None, Primitive] = {None: self._build_forward(None)}
        product = best([Descriptor(self._engine, "matmul", *weights_diff[:2], None, weights_diff[2], accumulate=True)])
        self._backward_weights = Primitive(product, Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION)
        # For few samples oneDNN's inner product is quicker than its matrix product here, though it leans on one itself.
        seen = Layout.strided(library, (outputs, inputs), (1, outputs)) if is_transposed else plain((outputs, inputs))
        hint = Descriptor(
            self._engine, "inner_product_forward", PropKind.FORWARD_TRAINING, self._x, seen, None, self._y
        )
        by_data = Descriptor(self._engine, "inner_product_backward_data", self._x, seen, self._y, hint)
        if by_data.is_slow:
            raise UnsupportedError(f"inner_product_backward_data: {by_data.implementation}")
        self._backward_data = Primitive(by_data, Argument.DESTINATION_DIFF, Argument.WEIGHTS, Argument.SOURCE_DIFF)

    def forward(self, x: Array, weights: Array, bias: Array | None, y: Array, relu_slope: float | None = None) -> None:
        """y = x W^T + b, with ``relu_slope`` followed by a ReLU of this negative slope."""
        if relu_slope not in self._forwards:
            self._forwards[relu_slope] = self._build_forward(relu_slope)
        self._forwards[relu_slope].run(x, weights, y, *(() if bias is None else (bias,)))

    def backward_weights(self, x: Array, dy: Array, weights_diff: Array) -> None:
        """weights_diff += the gradient by W."""
        first, second = (x, dy) if self._is_transposed else (dy, x)
        self._backward_weights.run(first, second, weights_diff)

    def backward_bias(self, dy: Array, bias_diff: Array) -> None:
        """bias_diff += the sum of dy over samples."""
        rows = dy[: self._y.count].reshape(self._y.shape)
        np.add(bias_diff, rows.sum(axis=0), out=bias_diff)

    def backward_data(self, dy: Array, weights: Array, dx: Array) -> None:
        """dx = dy W."""
        self._backward_data.run(dy, weights, dx)

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        built = [*self._forwards.values(), self._backward_weights, self._backward_data]
        return [primitive.implementation for primitive in built]

    def _build_forward(self, relu_slope: float | None) -> Primitive:
        descriptor = Descriptor(
            self._engine, "matmul", self._x, self._factor, self._bias, self._y, relu_slope=relu_slope
        )
        arguments = [Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION]
        return Primitive(best([descriptor]), *arguments, *([Argument.BIAS] if self._has_bias else []))
