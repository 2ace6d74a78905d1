"""Softmax and SoftmaxWithLoss on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Form
from paratrain.backends.cupy.modules import KernelModule
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.cupy.loss import VALUE, CupyLabelLayer
from paratrain.layers.loss import normalizer
from paratrain.layers.softmax import SoftmaxLayer
from paratrain.layers.softmax_loss import SoftmaxWithLossLayer
from paratrain.proto import LayerParameter, LossParameter

__all__ = ["CupySoftmaxLayer", "CupySoftmaxWithLossLayer"]

_MOST_BLOCKS = 4096
_THREADS = 256
_MANY_POSITIONS = 4096
_FEW_CLASSES = 64


class _Scores:
    """How kernels go over scores: their form, and which of the two kernels for a task is used, in how many blocks."""

    def __init__(self, form: Form, axis: int, sizes: tuple[int, int, int]) -> None:
        outer, self.classes, inner = sizes
        self.form = form if axis == 1 else form.plain_order()
        self.inner = 1 if self.form.channels_last else inner
        """How far apart the scores of a position lie."""
        self.positions = outer * inner
        self.by_rows = self.inner == 1 and (self.classes > _FEW_CLASSES or self.positions < _MANY_POSITIONS)
        # A thread of a row has about four classes.
        quarter = 1 << max(self.classes - 1, 0).bit_length() >> 2
        self.threads = min(max(quarter, 32), 512) if self.by_rows else _THREADS
        self.part_count = self.positions if self.by_rows else -(-self.positions // _THREADS)

    @property
    def probability_form(self) -> Form:
        """The form of probabilities: float32 in the order of the scores."""
        return Form.of(self.form.shape, np.float32, channels_last=self.form.channels_last)

    def launch(self, module: KernelModule, name: str, arrays: tuple[Any, ...], *arguments: Any) -> None:
        """Run ``name_rows`` or ``name_positions`` on arrays of scores; ``arguments`` come behind their sizes."""
        name += "_rows" if self.by_rows else "_positions"
        blocks, sizes = min(self.part_count, _MOST_BLOCKS), (self.classes, self.inner)
        module.launch_blocks(name, blocks, self.threads, self.positions, *arrays, *sizes, *arguments)


@register_layer("Softmax", backend="cupy")
class CupySoftmaxLayer(CupyLayer, SoftmaxLayer):
    """Softmax along one axis. The top is float32, in the order of the bottom; its gradient has the bottom's type."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self._axis = bottom[0].canonical_axis(self.parameter.softmax_param.axis)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = bottom[0].count > 0
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        form = self.writable(self.found(bottom[0]), top[0].data_memory, bottom[0].diff_memory)
        if top[0].data_memory is bottom[0].data_memory and form.dtype != np.float32:
            form = form.plain_order()  # a memory has one array for all forms but the plain one
        self._scores = scores = _Scores(form, self._axis, self._sizes)
        x = self.copies.read(bottom[0].data_memory, scores.form)
        y = self.forms.write(top[0].data_memory, scores.probability_form)
        scores.launch(self.kernels("softmax", scores.form.dtype), "softmax", (x, y))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            scores = self._scores
            y = self.copies.read(top[0].data_memory, scores.probability_form)
            dy = self.copies.read(top[0].diff_memory, scores.probability_form, "diff")
            in_place = top[0].diff_memory is bottom[0].diff_memory
            form = scores.probability_form if in_place else scores.form
            dx = self.forms.write(bottom[0].diff_memory, form)
            scores.launch(self.kernels("softmax", form.dtype), "softmax_backward", (y, dy, dx))


@register_layer("SoftmaxWithLoss", backend="cupy")
class CupySoftmaxWithLossLayer(CupyLabelLayer, SoftmaxWithLossLayer):
    """Softmax, loss and number of labels in one kernel, the gradient in another; probabilities and loss are float32."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._divisor = Buffer(self.xp)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self._axis = bottom[0].canonical_axis(self.parameter.softmax_param.axis)

    def label_sizes(self) -> tuple[int, int]:
        return self._sizes[1:]

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = bottom[0].count > 0
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        memory = self._probability.data_memory
        form = self.writable(self.found(bottom[0]), memory, bottom[0].diff_memory)
        self._scores = scores = _Scores(form, self._axis, self._sizes)
        x = self.copies.read(bottom[0].data_memory, scores.form)
        p = self.forms.write(memory, scores.probability_form)
        parts = self.sums.parts(2 * scores.part_count)
        scores.launch(
            self.kernels("softmax", scores.form.dtype), "softmax_loss", (x, p), *self.labels(bottom), self.fault,
            parts, parts[scores.part_count :], self._fixed_normalizer(), self.forms.write(top[0].data_memory, VALUE),
            self._divisor.get((1,), np.float32), self.sums.ticket,
        )  # fmt: skip
        if len(top) > 1 and top[1].data_memory is not memory:
            plain = scores.probability_form.plain_order()
            self.forms.convert(p, scores.probability_form, self.forms.write(top[1].data_memory, plain), plain)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
            return
        self.refuse_label_gradient(propagate_down)
        if propagate_down[0]:
            scores = self._scores
            p = self.copies.read(self._probability.data_memory, scores.probability_form)
            dx = self.forms.write(bottom[0].diff_memory, scores.form)
            self.kernels("softmax", scores.form.dtype).launch(
                "softmax_loss_backward", scores.form.count, p, dx, scores.classes, scores.inner, *self.labels(bottom),
                self.weight(top[0]), self._divisor.get((1,), np.float32)
            )  # fmt: skip

    def _fixed_normalizer(self) -> float:
        """What the loss is divided by; 0 where that is the number of labels that count, which only the GPU knows."""
        outer, _, inner = self._sizes
        if self._normalization == LossParameter.VALID and self._ignore_label is not None:
            return 0.0
        return normalizer(self._normalization, outer, inner, outer * inner)
