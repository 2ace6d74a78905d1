"""Eltwise on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends.cupy.eltwise import MOST_BLOBS, Eltwise
from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.eltwise import EltwiseLayer
from paratrain.layers.fused_relu import AppliesReLU
from paratrain.proto import LayerParameter
from paratrain.proto.caffe_pb2 import EltwiseParameter

__all__ = ["CupyEltwiseLayer"]


@register_layer("Eltwise", backend="cupy")
class CupyEltwiseLayer(AppliesReLU, CupyLayer, EltwiseLayer):
    """Eltwise in the form that most bottoms come in, one kernel each way. A sum can end in the ReLU that follows, and begins
    backward with that. Products and maxima of more than eight bottoms are the plain layer's.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._eltwise = Eltwise(self.forms)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.share_memory(bottom, top)
        is_sum = self._operation == EltwiseParameter.SUM
        self.is_capturable = is_sum or len(bottom) <= MOST_BLOBS
        # A script may look at the diff of the top, which the ReLU's backward pass writes.
        slope = self.take_relu(is_sum, with_backward=is_sum and not self.context.keeps_arrays)
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        form = self._form = self._choose_form(bottom, top)
        values = [self.copies.read(blob.data_memory, form, str(index)) for index, blob in enumerate(bottom)]
        y = self.forms.write(top[0].data_memory, form)
        if is_sum:
            self._eltwise.sum(form, values, y, self._coeffs, 1.0 if slope is None else slope)
        elif self._operation == EltwiseParameter.PROD:
            self._eltwise.product(form, values, y)
        else:
            self._eltwise.maximum(form, values, y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not any(propagate_down):
            return
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
        elif self._operation == EltwiseParameter.SUM:
            self._backward_sum(top[0], propagate_down, bottom)
        else:
            form = self._form
            values = [self.copies.read(blob.data_memory, form, str(index)) for index, blob in enumerate(bottom)]
            dy = self.copies.read(top[0].diff_memory, form, "diff")
            gradients = self._gradients(propagate_down, bottom, form)
            if self._operation == EltwiseParameter.MAX:
                self._eltwise.maximum_gradients(form, dy, values, gradients)
            else:
                y = None if self._stable else self.copies.read(top[0].data_memory, form, "top")
                self._eltwise.product_gradients(form, dy, values, gradients, y)

    def _backward_sum(self, top: Blob, propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        relu, above = self.relu_left, top.diff_memory
        form = self.writable(self.forms.found(above, top.shape), *(blob.diff_memory for blob in bottom))
        dy = self.copies.read(above, form, "diff")
        through = None
        if relu is not None:
            assert relu.fused_slope is not None
            through = (self.copies.read(top.data_memory, form, "top"), relu.fused_slope)
        # A bottom that shares the top's diff, see share_memory(), has its gradient already if there is no ReLU between.
        wanted = [
            down and (relu is not None or blob.diff_memory is not above)
            for blob, down in zip(bottom, propagate_down, strict=True)
        ]
        self._eltwise.sum_gradients(form, dy, self._gradients(wanted, bottom, form), self._coeffs, through)

    def _gradients(self, wanted: Sequence[bool], bottom: Sequence[Blob], form: Form) -> list[Any | None]:
        return [
            self.forms.write(blob.diff_memory, form) if is_wanted else None
            for blob, is_wanted in zip(bottom, wanted, strict=True)
        ]

    def _choose_form(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> Form:
        form = self.common_form([blob.data_memory for blob in bottom], top[0].shape)
        return self.writable(form, top[0].data_memory, *(blob.diff_memory for blob in bottom))
