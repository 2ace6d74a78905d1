"""ReLU on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.activation import ReLULayer
from paratrain.layers.base import register_layer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.fused_relu import FusedReLU

__all__ = ["CupyReLULayer"]


@register_layer("ReLU", backend="cupy")
class CupyReLULayer(FusedReLU, CupyLayer, ReLULayer):
    """ReLU in the form that the bottom comes in; a slope below 0 in place is the plain layer's, which keeps the signs."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        memory = top[0].data_memory
        if self.is_applied:
            self.is_applied, self.is_capturable = False, True
            return
        self.leaves_backward = False
        self.is_capturable = not self._keeps_mask(bottom, top) and self.may_arrange(memory)
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        form = self.found(bottom[0])
        x = self.copies.read(bottom[0].data_memory, form)
        y = self.forms.write(memory, form)
        self.kernels("activation", form.dtype).launch("relu_forward", form.count, x, y, self._slope, per_thread=4)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if self.leaves_backward:
            return
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            form = self.forms.found(top[0].diff_memory, top[0].shape)
            dy = self.copies.read(top[0].diff_memory, form, "diff")
            # The bottom, not the top: a layer behind may have worked in place on that.
            x = self.copies.read(bottom[0].data_memory, form)
            dx = self.forms.write(bottom[0].diff_memory, form)
            self.kernels("activation", form.dtype).launch(
                "relu_backward", form.count, x, dy, dx, self._slope, per_thread=4
            )
