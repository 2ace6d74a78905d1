"""Dropout on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.cupy.step_key import StepKey
from paratrain.layers.dropout import DropoutLayer
from paratrain.layers.effective_batch import rows_of_rank
from paratrain.proto import LayerParameter

__all__ = ["CupyDropoutLayer"]


@register_layer("Dropout", backend="cupy")
class CupyDropoutLayer(CupyLayer, DropoutLayer):
    """Dropout in the form of its bottom. There is no mask: backward draws the numbers of forward again, from the same key."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._key = StepKey(self, "dropout")
        self._form = Form.of((0,), context.dtype)

    def before_replay(self) -> None:
        if self._drops:
            self._key.write()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = True
        self.before_replay()
        self._form = form = self.writable(self.found(bottom[0]), top[0].data_memory, bottom[0].diff_memory)
        if self._drops or self._scale != 1 or bottom[0] is not top[0]:
            x = self.copies.read(bottom[0].data_memory, form)
            self._pass(form, x, self.forms.write(top[0].data_memory, form))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0] and (self._drops or self._scale != 1 or bottom[0] is not top[0]):
            form = self.gradient_form(self._form, bottom[0], top[0])
            dy = self.copies.read(top[0].diff_memory, form, "diff")
            self._pass(form, dy, self.forms.write(bottom[0].diff_memory, form))

    def _pass(self, form: Form, source: Any, target: Any) -> None:
        """target = source times this step's factors, 0 or the scale; in TEST the scale."""
        if self._drops:
            row_count = form.shape[0] if form.shape else 1
            rows = rows_of_rank(self, row_count)
            self.kernels("dropout", form.dtype).launch(
                "dropout", form.count, source, target, self._key.array, self._ratio, self._scale,
                form.count // max(row_count, 1), rows.start, rows.step, form.channels, form.pixels, form.channels_last,
                per_thread=4
            )  # fmt: skip
        else:
            factor = (float(self._scale), 0.0, 0.0)
            module = self.kernels("activation", form.dtype)
            module.launch("factor_forward", form.count, source, target, None, *factor, per_thread=4)
