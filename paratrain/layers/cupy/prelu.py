"""PReLU on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.cupy.grid_sums import GridSums
from paratrain.layers.cupy.kept_input import KeptInput
from paratrain.layers.prelu import PReLULayer
from paratrain.proto import LayerParameter

__all__ = ["CupyPReLULayer"]

_ROWS_OF_PART = 4096
_THREADS = 256
_MOST_BLOCKS = 4096


@register_layer("PReLU", backend="cupy")
class CupyPReLULayer(CupyLayer, PReLULayer):
    """PReLU in the form of its bottom; the slopes and their gradient are float32."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._kept_input = KeptInput(self)
        self._sums = GridSums(self.forms)
        self._form = Form.of((0,), context.dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = True
        self._form = form = self.writable(self.found(bottom[0]), top[0].data_memory, bottom[0].diff_memory)
        x = self.copies.read(bottom[0].data_memory, form)
        keeps = self.needs_backward and bottom[0] is top[0]
        kept = self._kept_input.write(form) if keeps else None
        y = self.forms.write(top[0].data_memory, form)
        self.kernels("prelu", form.dtype).launch(
            "prelu_forward", form.count, x, y, kept, self.read(self.blobs[0]), *self._order(form)
        )

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        form, in_place = self.gradient_form(self._form, bottom[0], top[0]), bottom[0] is top[0]
        x = self._kept_input.read(form) if in_place else self.copies.read(bottom[0].data_memory, form)
        dy = self.copies.read(top[0].diff_memory, form, "diff")
        if self.param_propagate_down[0] and form.count:
            rows = form.shape[0] * form.pixels
            parts, lanes = -(-rows // _ROWS_OF_PART), 32 if form.channels_last else 1
            blocks = min(parts * -(-form.channels // lanes), _MOST_BLOCKS)
            sums = self._sums.parts(parts * form.channels)
            self.kernels("prelu", form.dtype).launch_blocks(
                "prelu_slopes", blocks, _THREADS, rows, x, dy, self.write_diff(self.blobs[0]), sums, self._sums.ticket,
                _ROWS_OF_PART, *self._order(form)
            )  # fmt: skip
        if propagate_down[0]:
            dx = self.forms.write(bottom[0].diff_memory, form)
            self.kernels("prelu", form.dtype).launch(
                "prelu_backward", form.count, x, dy, dx, self.read(self.blobs[0]), *self._order(form)
            )

    def _order(self, form: Form) -> tuple[int, int, bool, bool]:
        return form.channels, form.pixels, form.channels_last, not self.blobs[0].axis_count
