"""Inner products by oneDNN, all of them on arrays in plain order."""

from __future__ import annotations

import numpy as np

from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import Argument, DataType, PropKind
from paratrain.backends.onednn.primitive import Array, Descriptor, Primitive, best

__all__ = ["OneDnnInnerProduct"]

_FEW_SAMPLES = 64
_MANY_WEIGHTS, _MOST_WEIGHTS = 1 << 18, 1 << 24
"""With so few samples and so many weights, which then have to come from memory, oneDNN reads these up to 1.7 times faster
as the first factor of a product: y' = W x', and with the most weights x' = W' y' too. Turning what comes out costs little."""


class OneDnnInnerProduct:
    """y = x W^T + b and its gradients: x (samples, inputs), y (samples, outputs), W (outputs, inputs) or, where it
    ``is_transposed``, (inputs, outputs). Every array is plain; W is never copied into another layout.

    With ``dtype`` BF16 the factors of all products are bfloat16: x and dy come in it, in plain order, and W is rounded before
    each use. What is made is float32. Raises UnsupportedError where oneDNN has no kernel.
    """

    def __init__(
        self,
        arranger: Arranger,
        samples: int,
        inputs: int,
        outputs: int,
        is_transposed: bool,
        has_bias: bool,
        dtype: DataType = DataType.F32,
    ) -> None:
        self._arranger, self._engine = arranger, arranger.engine
        self.dtype = dtype
        self._is_transposed, self._has_bias = is_transposed, has_bias
        self._samples, self._inputs, self._outputs = samples, inputs, outputs
        plain = arranger.plain
        self._bias = plain((1, outputs)) if has_bias else None
        self._x, self._y = self._plain(samples, inputs), plain((samples, outputs))
        self._dx, self._dy = plain((samples, inputs)), self._plain(samples, outputs)
        self._factor = self._plain(inputs, outputs) if is_transposed else self._turned(inputs, outputs)
        self._weights = self._plain(*((inputs, outputs) if is_transposed else (outputs, inputs)))
        self._weights_diff = plain(self._weights.shape)
        self._forwards: dict[float | None, Primitive] = {}
        self._by_weights: dict[bool, Primitive] = {}
        self._wide_forward, self._wide_backward = self._build_wide()
        # For few samples oneDNN's inner product is quicker than its matrix product here, though it leans on one itself.
        seen = self._turned(outputs, inputs) if is_transposed else self._weights
        self._hint = Descriptor(
            self._engine, "inner_product_forward", PropKind.FORWARD_TRAINING, self._x, seen, None, self._y
        )
        by_data = Descriptor(self._engine, "inner_product_backward_data", self._dx, seen, self._dy, self._hint)
        if by_data.is_slow:
            raise UnsupportedError(f"inner_product_backward_data: {by_data.implementation}")
        self._backward_data = Primitive(by_data, Argument.DESTINATION_DIFF, Argument.WEIGHTS, Argument.SOURCE_DIFF)
        if self._wide_forward is None:
            self._forwards[None] = self._build_forward(None)
        self._build_backward_weights(accumulate=True)

    def forward(self, x: Array, weights: Array, bias: Array | None, y: Array, relu_slope: float | None = None) -> None:
        """y = x W^T + b, with ``relu_slope`` followed by a ReLU of this negative slope."""
        if self._wide_forward is not None:
            out, product = self._as_y(y), self._lent((self._outputs, self._samples))
            self._wide_forward.run(weights, x, product.reshape(-1))
            if bias is None:
                np.copyto(out, product.T)
            else:
                np.add(product.T, bias[: self._outputs], out=out)
            if relu_slope is not None:
                np.maximum(out, 0, out=out) if relu_slope == 0 else np.multiply(out, relu_slope, out=out, where=out < 0)
            return
        if relu_slope not in self._forwards:
            self._forwards[relu_slope] = self._build_forward(relu_slope)
        self._forwards[relu_slope].run(x, self._rounded(weights), y, *(() if bias is None else (bias,)))

    def backward_weights(self, x: Array, dy: Array, weights_diff: Array, *, accumulate: bool = True) -> None:
        """weights_diff += the gradient by W; without ``accumulate`` it is written, which is much the faster."""
        if accumulate not in self._by_weights:
            self._build_backward_weights(accumulate)
        first, second = (x, dy) if self._is_transposed else (dy, x)
        self._by_weights[accumulate].run(first, second, weights_diff)

    def backward_bias(self, dy: Array, bias_diff: Array) -> None:
        """bias_diff += the sum of dy over samples."""
        np.add(bias_diff, np.add.reduce(self._as_y(dy), axis=0), out=bias_diff)

    def backward_data(self, dy: Array, weights: Array, dx: Array) -> None:
        """dx = dy W."""
        if self._wide_backward is None:
            self._backward_data.run(dy, self._rounded(weights), dx)
            return
        product = self._lent((self._inputs, self._samples))
        self._wide_backward.run(weights, dy, product.reshape(-1))
        np.copyto(dx[: self._x.count].reshape(self._x.shape), product.T)

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        forward = list(self._forwards.values()) if self._wide_forward is None else [self._wide_forward]
        built = [*forward, *self._by_weights.values(), self._wide_backward or self._backward_data]
        return [primitive.implementation for primitive in built]

    def _turned(self, rows: int, columns: int) -> Layout:
        """A (columns, rows) array in plain order, seen as (rows, columns)."""
        return Layout.strided(self._engine.library, (rows, columns), (1, rows), self.dtype)

    def _plain(self, rows: int, columns: int) -> Layout:
        return Layout.plain(self._engine.library, (rows, columns), self.dtype)

    def _rounded(self, weights: Array) -> Array:
        """The weights as products take them, in memory that the next primitive may overwrite."""
        if self.dtype == DataType.F32:
            return weights
        rounded = self._arranger.lent(self._weights.size_bytes)
        self._arranger.reorder(weights, self._weights_diff, rounded, self._weights)
        return rounded

    def _as_y(self, array: Array) -> Array:
        return array[: self._y.count].reshape(self._y.shape)

    def _lent(self, shape: tuple[int, int]) -> Array:
        """Memory for a product that is copied before the next primitive runs."""
        count = shape[0] * shape[1]
        return self._arranger.lent(4 * count)[: 4 * count].view(np.float32).reshape(shape)

    def _build_wide(self) -> tuple[Primitive | None, Primitive | None]:
        """The products y' = W x' and x' = W' y', where they are the faster ones."""
        is_wide = self._samples <= _FEW_SAMPLES and self._weights.count >= _MANY_WEIGHTS
        if self._is_transposed or not is_wide or self.dtype != DataType.F32:
            return None, None
        samples, inputs, outputs, plain = self._samples, self._inputs, self._outputs, self._arranger.plain
        forward = self._build_product(self._weights, self._turned(inputs, samples), plain((outputs, samples)))
        if self._weights.count < _MOST_WEIGHTS:
            return forward, None
        factors = self._turned(inputs, outputs), self._turned(outputs, samples)
        return forward, self._build_product(*factors, plain((inputs, samples)))

    def _build_product(self, first: Layout, second: Layout, product: Layout) -> Primitive | None:
        found = Descriptor(self._engine, "matmul", first, second, None, product)
        if found.is_slow or "gemm" in found.implementation:
            return None
        return Primitive(found, Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION)

    def _build_forward(self, relu_slope: float | None) -> Primitive:
        descriptor = Descriptor(
            self._engine, "matmul", self._x, self._factor, self._bias, self._y, relu_slope=relu_slope
        )
        arguments = [Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION]
        return Primitive(best([descriptor]), *arguments, *([Argument.BIAS] if self._has_bias else []))

    def _build_backward_weights(self, accumulate: bool) -> None:
        if not accumulate and not self._is_transposed:
            # It writes past the caches: 2.5 times faster than the matrix product for weights that do not fit into them.
            found = Descriptor(
                self._engine,
                "inner_product_backward_weights",
                self._x,
                self._weights_diff,
                None,
                self._dy,
                self._hint,
            )
            if not found.is_slow:
                arguments = (Argument.DESTINATION_DIFF, Argument.SOURCE, Argument.WEIGHTS_DIFF)
                self._by_weights[accumulate] = Primitive(found, *arguments)
                return
        samples, inputs, outputs = self._samples, self._inputs, self._outputs
        factors = (
            (self._turned(inputs, samples), self._dy)
            if self._is_transposed
            else (self._turned(outputs, samples), self._x)
        )
        product = best([Descriptor(self._engine, "matmul", *factors, None, self._weights_diff, accumulate=accumulate)])
        self._by_weights[accumulate] = Primitive(product, Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION)
