"""EuclideanLoss, SigmoidCrossEntropyLoss and HingeLoss on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.cupy.loss import VALUE, CupyLabelLayer, CupyLossLayer
from paratrain.layers.euclidean_loss import EuclideanLossLayer
from paratrain.layers.hinge_loss import HingeLossLayer
from paratrain.layers.loss import normalizer
from paratrain.layers.sigmoid_cross_entropy_loss import SigmoidCrossEntropyLossLayer
from paratrain.proto import LayerParameter, LossParameter

__all__ = ["CupyEuclideanLossLayer", "CupyHingeLossLayer", "CupySigmoidCrossEntropyLossLayer"]

_RUN = 1024
"""RUN of kernels/losses.cu."""
_THREADS = 256
_MOST_BLOCKS = 4096


class _SummingLayer(CupyLossLayer):
    """A layer whose loss is a sum over its values, by kernels of the family "losses"."""

    def launch_sum(self, name: str, form: Form, *arguments: Any) -> None:
        """Run a kernel over the values of a blob, in blocks that each sum runs of them."""
        blocks = min(-(-form.count // _RUN), _MOST_BLOCKS)
        self.kernels("losses", form.dtype).launch_blocks(name, blocks, _THREADS, form.count, *arguments)

    def run_sums(self, form: Form, kind_count: int = 1) -> list[Any]:
        """Working memory for the sums of all runs, of each of ``kind_count`` kinds; and last the ticket."""
        runs = -(-form.count // _RUN)
        parts = self.sums.parts(runs * kind_count)
        return [*(parts[kind * runs :] for kind in range(kind_count)), self.sums.ticket]

    def pair_forms(self, bottom: Sequence[Blob]) -> tuple[Form, Form]:
        """The forms of two bottoms of as many values, in one order: the first as it lies, the second in float32."""
        form, shape = self.writable(self.found(bottom[0]), *(blob.diff_memory for blob in bottom)), bottom[1].shape
        form = form if bottom[0].shape == shape else form.plain_order()
        return form, Form.of(shape, np.float32, channels_last=form.channels_last)


@register_layer("EuclideanLoss", backend="cupy")
class CupyEuclideanLossLayer(_SummingLayer, EuclideanLossLayer):
    """EuclideanLoss by kernels; differences and the loss are float32."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = bottom[0].count > 0
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        self._pair = form, target_form = self.pair_forms(bottom)
        x = self.copies.read(bottom[0].data_memory, form)
        targets = self.copies.read(bottom[1].data_memory, target_form, "targets")
        differences = self._difference.get((form.count,), np.float32)
        loss = self.forms.write(top[0].data_memory, VALUE)
        divisor = 2.0 * bottom[0].shape[0]
        self.launch_sum("euclidean_forward", form, x, targets, differences, divisor, loss, *self.run_sums(form))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
            return
        for blob, wanted, sign, form in zip(bottom, propagate_down, (1.0, -1.0), self._pair, strict=True):
            if wanted:
                dx = self.forms.write(blob.diff_memory, form)
                differences = self._difference.get((form.count,), np.float32)
                factor = sign / bottom[0].shape[0]
                self.kernels("losses", form.dtype).launch(
                    "euclidean_backward", form.count, differences, dx, factor, self.weight(top[0])
                )


@register_layer("SigmoidCrossEntropyLoss", backend="cupy")
class CupySigmoidCrossEntropyLossLayer(_SummingLayer, SigmoidCrossEntropyLossLayer):
    """SigmoidCrossEntropyLoss by kernels, which count the targets that are not ignored."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._divisor = Buffer(self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = bottom[0].count > 0
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        self._pair = form, _ = self.pair_forms(bottom)
        outer, inner = bottom[0].shape[0], bottom[0].count_between(1)
        is_counted = self._normalization == LossParameter.VALID and self._ignore_label is not None
        fixed = 0.0 if is_counted else normalizer(self._normalization, outer, inner, form.count)
        divisor, loss = self._divisor.get((1,), np.float32), self.forms.write(top[0].data_memory, VALUE)
        x, targets, *ignored = self._read(bottom)
        sums = self.run_sums(form, kind_count=2)
        self.launch_sum("cross_entropy_forward", form, x, targets, *ignored, fixed, divisor, loss, *sums)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
            return
        self.refuse_label_gradient(propagate_down)
        if propagate_down[0]:
            form = self._pair[0]
            x, targets, *ignored = self._read(bottom)
            dx = self.forms.write(bottom[0].diff_memory, form)
            weight, divisor = self.weight(top[0]), self._divisor.get((1,), np.float32)
            self.kernels("losses", form.dtype).launch(
                "cross_entropy_backward", form.count, x, targets, dx, *ignored, weight, divisor
            )

    def _read(self, bottom: Sequence[Blob]) -> tuple[Any, Any, int, bool]:
        """Scores, targets, which target is ignored, and whether there is one."""
        form, target_form = self._pair
        x = self.copies.read(bottom[0].data_memory, form)
        targets = self.copies.read(bottom[1].data_memory, target_form, "targets")
        return x, targets, self._ignore_label or 0, self._ignore_label is not None


@register_layer("HingeLoss", backend="cupy")
class CupyHingeLossLayer(_SummingLayer, CupyLabelLayer, HingeLossLayer):
    """HingeLoss by kernels; margins and the loss are float32."""

    _ignore_label = None

    def label_sizes(self) -> tuple[int, int]:
        return self._sizes[1], 1

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = bottom[0].count > 0
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        self._form = form = self.found(bottom[0]).plain_order()
        count, classes = self._sizes
        x, labels = self.copies.read(bottom[0].data_memory, form), self.labels(bottom)[0]
        margins, loss = self._margin.get((form.count,), np.float32), self.forms.write(top[0].data_memory, VALUE)
        squared, divisor, sums = self._squared, float(count), self.run_sums(form)
        self.launch_sum("hinge_forward", form, x, margins, classes, labels, self.fault, squared, divisor, loss, *sums)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not self.is_capturable:
            super().backward(top, propagate_down, bottom)
            return
        self.refuse_label_gradient(propagate_down)
        if propagate_down[0]:
            form, (count, classes) = self.writable(self._form, bottom[0].diff_memory), self._sizes
            margins, labels = self._margin.get((form.count,), np.float32), self.labels(bottom)[0]
            dx = self.forms.write(bottom[0].diff_memory, form)
            self.kernels("losses", form.dtype).launch(
                "hinge_backward", form.count, margins, dx, classes, labels, self._squared, float(count),
                self.weight(top[0])
            )  # fmt: skip
