"""InnerProduct on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Form
from paratrain.backends.cupy.weights import PreparedWeights
from paratrain.blob import Blob, Memory
from paratrain.layers.base import register_layer
from paratrain.layers.cupy.fusion import EndsInReLU
from paratrain.layers.inner_product import InnerProductLayer

__all__ = ["CupyInnerProductLayer"]


@register_layer("InnerProduct", backend="cupy")
class CupyInnerProductLayer(EndsInReLU, InnerProductLayer):
    """Inner products by cuBLAS of values in plain order, in the precision of the backend, with sums in float32.

    16-bit products take a copy of the weights in that type, made anew when they have changed. The gradient of the weights is
    written straight into theirs, in float32.
    """

    is_capturable = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().setup(bottom, top)
        self._weights = PreparedWeights(self.forms, self._factor_form(self.blobs[0].shape))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        memory = top[0].data_memory
        form = self._output_form(memory, top[0].shape)
        can_apply = form == self._output_form(top[0].diff_memory, top[0].shape) == self._factor_form(top[0].shape)
        slope = self.take_relu(can_apply, with_backward=True)
        x = self._read_bottom(bottom[0])
        y = self.forms.write(memory, form)
        weights = self._read_weights()
        factor = weights if self._transpose else weights.T
        self.gpu.blas.product(x, factor, y.reshape(self._samples, self._outputs))
        self.bias.add(y, self._matrix_form(form), self.bias_data, slope)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        form = self._factor_form(top[0].shape)
        dy = self.backward_to_product(top[0], form, self._matrix_form(form)).reshape(self._samples, self._outputs)
        if self.param_propagate_down[0]:
            x = self._read_bottom(bottom[0])
            a, b = (x.T, dy) if self._transpose else (dy.T, x)
            beta = 1.0 if self.accumulates(0) else 0.0
            weights_diff = self.write_diff(self.blobs[0])
            self.gpu.blas.product(a, b, weights_diff, beta=beta)
        if propagate_down[0]:
            memory = bottom[0].diff_memory
            dx = self.forms.write(memory, self._output_form(memory, bottom[0].shape))
            weights = self._read_weights()
            factor = weights.T if self._transpose else weights
            self.gpu.blas.product(dy, factor, dx.reshape(self._samples, self._inputs))

    def _read_weights(self) -> Any:
        return self._weights.read(self.blobs[0].data_memory)[0].reshape(self.blobs[0].shape)

    def _read_bottom(self, blob: Blob) -> Any:
        array = self.copies.read(blob.data_memory, self._factor_form(blob.shape))
        return array.reshape(self._samples, self._inputs)

    def _factor_form(self, shape: tuple[int, ...]) -> Form:
        """That of factors."""
        return Form.of(shape, self.gpu.precision.storage)

    def _output_form(self, memory: Memory, shape: tuple[int, ...]) -> Form:
        """That of a result: narrow only where it may be left so."""
        return self._factor_form(shape) if self.may_arrange(memory) else Form.of(shape, np.float32)

    def _matrix_form(self, form: Form) -> Form:
        """The same values of the top as (samples, outputs)."""
        return Form.of((self._samples, self._outputs), form.dtype)
